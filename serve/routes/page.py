"""The web page."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from gen.errors import NotFound

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parents[1] / "page"
FILES = {
    path.relative_to(FOLDER).as_posix(): path
    for path in FOLDER.rglob("*")
    if path.suffix in (".js", ".css", ".svg", ".txt")  # texts are licences of what others wrote
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/")
async def index() -> FileResponse:
    """The page itself."""
    return FileResponse(FOLDER / "index.html", headers={"Content-Security-Policy": POLICY})


@router.get("/page/{name:path}")
async def file(name: str) -> FileResponse:
    """A part of the page."""
    if name not in FILES:
        raise NotFound("the page has no such part")
    return FileResponse(FILES[name], headers={"Cache-Control": "no-cache"})
