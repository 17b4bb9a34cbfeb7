"""Large images of tissue."""

from typing import Annotated

from fastapi import APIRouter, Header, Response

from jobs.tasks import TASKS
from jobs.tasks.large_image import LargeImageSpec
from serve.auth import WithJobs
from serve.errors import RESPONSES
from serve.links import job_answer
from serve.routes.jobs import TheService, id_of
from serve.schemas import JobAnswer

router = APIRouter(tags=["generate"], responses=RESPONSES)


@router.post("/v1/large-images", status_code=202)
async def large_images(
    spec: LargeImageSpec,
    response: Response,
    caller: WithJobs,
    service: TheService,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> JobAnswer:
    """Make one synthetic image of tissue of up to 2^27 pixels, as a job: see Location.

    Its progress counts windows; its result is a pyramidal OME-TIFF, of which viewers may ask for
    single tiles. With an Idempotency-Key the same request may be sent again and makes one job.
    """
    job_id = id_of(caller, idempotency_key)
    job, _ = await service.create_job(caller, TASKS["large-images"], spec, job_id)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job_answer(service, job)
