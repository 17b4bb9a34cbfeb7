"""Chest X-rays from sentences."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from jobs.tasks import TASKS
from jobs.tasks.text_to_cxr import MEDIA_TYPES, TextToCXRSpec
from serve.answers import answer_live
from serve.auth import Generating
from serve.errors import RESPONSES
from serve.service import Service, service_of

router = APIRouter(tags=["generate"])


@router.post(
    "/v1/text-to-cxr",
    responses={
        **RESPONSES,
        200: {
            "description": "JSON with every image in base64; or, as Accept prefers, the file of "
            "one image, or events while it forms",
            "content": {
                "image/png": {},
                "application/dicom": {},
                "text/event-stream": {},
                "application/json": {},
            },
        },
        202: {"description": "Prefer: respond-async made a job of it; see Location"},
        406: {"description": "Accept names nothing we can answer with"},
    },
)
async def text_to_cxr(
    spec: TextToCXRSpec,
    request: Request,
    caller: Generating,
    service: Annotated[Service, Depends(service_of)],
) -> Response:
    """Make up to 16 synthetic chest X-rays while you wait, or any number as a job.

    The answer has the seed of each image and every parameter as it was resolved. If you go away,
    the work stops.
    """
    task = TASKS["text-to-cxr"]
    return await answer_live(service, caller, request, task, spec, MEDIA_TYPES[spec.format])
