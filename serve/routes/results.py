"""Results by signed links, as they were made or in another form."""

import time
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response

from gen.data.bundle import unpack
from gen.data.convert import map_thumbnail, to_dicom, to_png, to_thumbnail
from gen.data.provenance import Record
from gen.errors import InvalidInput, NotFound
from jobs.job import Item
from jobs.links import check
from jobs.sink import BUNDLE
from jobs.tasks.task import Made
from jobs.worker import in_thread
from serve.answers import file_response
from serve.errors import RESPONSES
from serve.links import media_type_of
from serve.schemas import JOB_ID
from serve.service import Service, service_of

router = APIRouter(prefix="/v1/results", tags=["jobs"], responses=RESPONSES)


class ResultFormat(StrEnum):
    """What a result is sent as."""

    PNG = "png"
    DICOM = "dicom"
    PREVIEW = "preview"


CONVERT = {
    ResultFormat.PNG: ("image/png", to_png),
    ResultFormat.DICOM: ("application/dicom", to_dicom),
    ResultFormat.PREVIEW: ("image/png", to_thumbnail),
}


@router.get(
    "/{job_id}/{index}",
    response_class=Response,
    responses={
        200: {"content": {"image/png": {}, "application/dicom": {}, "image/tiff": {}, BUNDLE: {}}},
        404: {"description": "There is no such result, or no longer"},
    },
)
async def get_result(
    job_id: Annotated[str, Path(pattern=JOB_ID)],
    index: Annotated[int, Path(ge=0, le=2**31 - 1)],
    expires: Annotated[int, Query(ge=0, le=2**53)],
    signature: Annotated[str, Query(max_length=100)],
    service: Annotated[Service, Depends(service_of)],
    format: Annotated[  # noqa: A002 - the name callers see
        ResultFormat | None, Query(description="Convert; null sends the file as it was made")
    ] = None,
) -> Response:
    """The file of an item, by the link that the item's description gives."""
    check(service.link_secret, job_id, index, expires, signature, time.time())
    item = await in_thread(service.store.item, job_id, index)
    made = await in_thread(_read, service, item, format)
    response = file_response(made, f"{job_id}-{index}")
    response.headers["Cache-Control"] = "private, max-age=86400, immutable"
    return response


def _read(service: Service, item: Item, wanted: ResultFormat | None) -> Made:
    if item.file is None or item.sha256 is None or item.record is None:
        raise NotFound(f"item {item.index} has no result")
    data = service.sink.get(item.file, item.sha256)
    stored = media_type_of(item.file)
    if wanted is None or (wanted is not ResultFormat.PREVIEW and CONVERT[wanted][0] == stored):
        return Made(data, stored, item.record)
    if stored == BUNDLE:
        return Made(_preview(data, wanted), "image/png", item.record)
    media_type, convert = CONVERT[wanted]
    return Made(convert(data, Record.model_validate(_own(item.record))), media_type, item.record)


def _preview(data: bytes, wanted: ResultFormat) -> bytes:
    """Of a result of several files, its picture in small; it is one picture in no other way."""
    if wanted is not ResultFormat.PREVIEW:
        raise InvalidInput(
            f"format is {wanted.value}, but the result has several files; take the archive as it"
            " is, format=preview, or a file of it by /files/NAME"
        )
    files = unpack(data)
    return map_thumbnail(files["overlay.png"] if "overlay.png" in files else files["image.png"])


def _own(record: dict[str, Any]) -> dict[str, Any]:
    """The task's record: items of a data set have it inside the sample's."""
    own: dict[str, Any] = record.get("record", record)
    return own
