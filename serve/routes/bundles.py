"""Single files of results that have several, under the signed links."""

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from gen.data.bundle import media_type, read_member
from gen.errors import InvalidInput, NotFound
from jobs.links import check
from jobs.sink import BUNDLE
from jobs.worker import in_thread
from serve.errors import RESPONSES
from serve.links import media_type_of
from serve.schemas import JOB_ID
from serve.service import Service, service_of

router = APIRouter(prefix="/v1/results", tags=["jobs"], responses=RESPONSES)

CACHED = "private, max-age=86400, immutable"  # a result never changes


@router.get(
    "/{job_id}/{index}/files/{name}",
    response_class=Response,
    responses={
        200: {
            "content": {
                "image/png": {},
                "application/json": {},
                "application/dicom": {},
                "application/octet-stream": {},
            }
        },
        404: {"description": "There is no such result or file, or no longer"},
    },
)
async def get_file(
    job_id: Annotated[str, Path(pattern=JOB_ID)],
    index: Annotated[int, Path(ge=0, le=2**31 - 1)],
    name: Annotated[str, Path(pattern=r"^[a-z]{1,32}\.[a-z]{1,8}$")],
    expires: Annotated[int, Query(ge=0, le=2**53)],
    signature: Annotated[str, Query(max_length=100)],
    service: Annotated[Service, Depends(service_of)],
) -> Response:
    """One of the files that the item's record names; add /files/NAME to the path of its link."""
    check(service.link_secret, job_id, index, expires, signature, time.time())
    item = await in_thread(service.store.item, job_id, index)
    if item.file is None:
        raise NotFound(f"item {index} has no result")
    if media_type_of(item.file) != BUNDLE:
        raise InvalidInput("the result is a single file; take it as it is")
    data = await in_thread(_read, service, item.file, name)
    headers = {
        "Cache-Control": CACHED,
        "Content-Disposition": f'inline; filename="{job_id}-{index}-{name}"',
    }
    return Response(data, media_type=media_type(name), headers=headers)


def _read(service: Service, file: str, name: str) -> bytes:
    with service.sink.open(file) as stream:
        return read_member(stream, name)
