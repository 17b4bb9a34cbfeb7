"""Where pictures depart from healthy anatomy."""

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from jobs.sink import BUNDLE
from jobs.tasks import TASKS
from jobs.tasks.anomaly_map import AnomalyMapSpec
from serve.answers import accepted, answer_live
from serve.auth import Generating
from serve.errors import RESPONSES
from serve.routes.jobs import TheService, id_of
from serve.schemas import JobAnswer

router = APIRouter(tags=["generate"])


@router.post(
    "/v1/anomaly-maps",
    responses={
        **RESPONSES,
        200: {
            "description": "Of one picture: JSON with every file in base64; or, as Accept prefers, "
            "an archive of them, or events while it is compared",
            "content": {BUNDLE: {}, "text/event-stream": {}, "application/json": {}},
        },
        202: {
            "model": JobAnswer,
            "description": "A job, of several pictures or a study, or as Prefer: respond-async or "
            "an Idempotency-Key made it; see Location",
        },
        406: {"description": "Accept names nothing we can answer with"},
    },
)
async def anomaly_maps(
    spec: AnomalyMapSpec,
    request: Request,
    caller: Generating,
    service: TheService,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> Response:
    """Map where chest X-rays depart from healthy anatomy: one while you wait, up to 16 as a job.

    Of each picture you get the map as numbers and in colour over the picture, the picture as it
    would be without disease, which is synthetic, boxes, and a score; of a DICOM picture also a
    segmentation and a capture that join its study. A research tool: no diagnosis.

    Or name a study of a PACS that the service was configured by: each picture of it becomes an item
    of a job, and with `store` what is derived goes back to it. A key needs the scope `pacs`.
    """
    task = TASKS["anomaly-maps"]
    if spec.study is not None or len(spec.pictures) > 1 or idempotency_key is not None:
        job_id = id_of(caller, idempotency_key)
        job, _ = await service.create_job(caller, task, spec, job_id)
        return accepted(service, job)
    return await answer_live(service, caller, request, task, spec, BUNDLE)
