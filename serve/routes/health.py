"""Whether the service lives, whether it can work, and its figures."""

from fastapi import APIRouter, Response

from gen.errors import MedphantomError
from jobs.worker import in_thread
from serve.auth import Measuring
from serve.errors import RESPONSES
from serve.metrics import CONTENT_TYPE, page, snapshot
from serve.routes.jobs import TheService

router = APIRouter(tags=["operation"])


@router.get("/health/live")
async def live() -> dict[str, str]:
    """Whether this process answers: if not, restart it."""
    return {"status": "live"}


@router.get("/health/ready", responses={503: RESPONSES[503]})
async def ready(service: TheService) -> dict[str, str]:
    """Whether requests can be served now: if not, send them elsewhere."""
    await in_thread(service.store.counts)
    if not await service.backend.is_ready():
        raise MedphantomError("no sampler is ready yet")
    return {"status": "ready"}


@router.get("/metrics", responses={**RESPONSES, 200: {"content": {"text/plain": {}}}})
async def metrics(
    caller: Measuring,
    service: TheService,
) -> Response:
    """Figures of all processes, for Prometheus."""
    for state, count in (await in_thread(service.store.counts)).items():
        service.metrics.job_items.labels(state.value).set(count)
    sources = await service.backend.metrics()
    sources["ingress"] = snapshot(service.metrics.registry)
    return Response(page(sources), media_type=CONTENT_TYPE)
