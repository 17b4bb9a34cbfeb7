"""Slides for viewers: what levels there are, and single tiles of them, under the signed links."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, Field

from gen.data.stored_tiles import read_tile, tile_levels
from gen.errors import InvalidInput, NotFound
from jobs.links import check
from jobs.worker import in_thread
from serve.errors import RESPONSES
from serve.links import media_type_of
from serve.schemas import JOB_ID
from serve.service import Service, service_of

GONE: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such result, or no longer"}
}
router = APIRouter(
    prefix="/v1/results/{job_id}/{index}/tiles", tags=["jobs"], responses={**RESPONSES, **GONE}
)

CACHED = "private, max-age=86400, immutable"  # a result never changes
Index = Annotated[int, Path(ge=0, le=2**31 - 1)]


class LevelAnswer(BaseModel):
    """One level of a pyramid, in its own pixels."""

    width: int
    height: int
    columns: int = Field(description="Of tiles")
    rows: int = Field(description="Of tiles")


class SlideAnswer(BaseModel):
    """A slide and its levels."""

    width: int
    height: int
    tile: int = Field(
        description="Side of each tile; those at the right and bottom edges repeat the edge"
    )
    microns_per_pixel: float | None = Field(description="Of the largest level")
    levels: list[LevelAnswer] = Field(description="Largest first, each half as large as the last")


async def slide_of(
    job_id: Annotated[str, Path(pattern=JOB_ID)],
    index: Index,
    expires: Annotated[int, Query(ge=0, le=2**53)],
    signature: Annotated[str, Query(max_length=100)],
    service: Annotated[Service, Depends(service_of)],
) -> tuple[str, float | None]:
    """File and microns per pixel of a result that is a slide, by its signed link."""
    check(service.link_secret, job_id, index, expires, signature, time.time())
    item = await in_thread(service.store.item, job_id, index)
    if item.file is None or item.record is None:
        raise NotFound(f"item {item.index} has no result")
    if media_type_of(item.file) != "image/tiff":
        raise InvalidInput("the result is no slide and has no tiles; take the file as it is")
    return item.file, item.record["settings"].get("microns_per_pixel")


SlideOf = Annotated[tuple[str, float | None], Depends(slide_of)]


@router.get("")
async def describe_slide(
    slide: SlideOf, response: Response, service: Annotated[Service, Depends(service_of)]
) -> SlideAnswer:
    """Sizes of a slide and its levels; add /tiles to the path of an item's link."""
    file, scale = slide
    response.headers["Cache-Control"] = CACHED
    return await in_thread(_describe, service, file, scale)


@router.get(
    "/{level}/{column}/{row}",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}},
)
async def get_tile(
    level: Annotated[int, Path(ge=0, le=31)],
    column: Index,
    row: Index,
    slide: SlideOf,
    service: Annotated[Service, Depends(service_of)],
) -> Response:
    """One tile as the JPEG file that is stored; level 0 is the largest."""
    data = await in_thread(_read, service, slide[0], level, column, row)
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": CACHED})


def _describe(service: Service, file: str, scale: float | None) -> SlideAnswer:
    with service.sink.open(file) as stream:
        levels = tile_levels(stream)
    return SlideAnswer(
        width=levels[0].width,
        height=levels[0].height,
        tile=levels[0].tile,
        microns_per_pixel=scale,
        levels=[
            LevelAnswer(width=each.width, height=each.height, columns=each.columns, rows=each.rows)
            for each in levels
        ],
    )


def _read(service: Service, file: str, level: int, column: int, row: int) -> bytes:
    with service.sink.open(file) as stream:
        return read_tile(stream, level, column, row)
