"""Single tiles straight from a tiled TIFF, as they are stored: what a viewer asks for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tifffile import COMPRESSION, TiffFile, TiffPage

from gen.data.limits import boundary
from gen.errors import InvalidInput, UnsafeFile

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Halves of a side of 2^31 pixels, down to one.
_MAX_LEVELS = 32
# Twice three bytes, and a small tile's share of the tables.
_MAX_BYTES_PER_PIXEL = 16


@dataclass(frozen=True)
class TileLevel:
    """One level of a pyramid: its size and that of its tiles, in its own pixels.

    Tiles have their full size at the right and bottom edges too: what lies beyond the level
    repeats its edge, and a viewer leaves it out.
    """

    height: int
    width: int
    tile: int
    rows: int  # of tiles
    columns: int


def tile_levels(stream: BinaryIO) -> list[TileLevel]:
    """Levels of the slide in `stream`, largest first; the stream's position is moved.

    Raises UnsafeFile if it is no TIFF of square tiles.
    """
    with _open(stream) as tiff:
        return [_describe(_page(tiff, number)) for number in range(_count_levels(tiff))]


def read_tile(stream: BinaryIO, level: int, column: int, row: int) -> bytes:
    """The JPEG file of one tile of the slide in `stream`; the stream's position is moved.

    Args:
        level: index into `tile_levels`, 0 is the largest.
        column, row: of the tile, from 0 at the top left.

    Raises:
        InvalidInput: there is no such level or tile, or its tiles are no JPEG files.
        UnsafeFile: the stream is no TIFF of square tiles, or is cut short.
    """
    with _open(stream) as tiff:
        _check_index("level", level, _count_levels(tiff))
        page = _page(tiff, level)
        shape = _describe(page)
        _check_index("column", column, shape.columns)
        _check_index("row", row, shape.rows)
        if page.compression != COMPRESSION.JPEG or page.jpegtables is not None:
            raise InvalidInput(
                f"the slide's tiles are stored as {COMPRESSION(page.compression).name}, but only "
                "whole JPEG files are given out; write it with compression 'jpeg'"
            )
        index = row * shape.columns + column
        length = page.databytecounts[index]
        if length > _MAX_BYTES_PER_PIXEL * shape.tile**2:
            raise UnsafeFile(
                f"the slide declares a tile of {length} bytes, more than its pixels can fill; "
                "export it again"
            )
        stream.seek(page.dataoffsets[index])
        data = stream.read(length)
    if len(data) != length:
        raise UnsafeFile("the slide ends within a tile, but it must be complete; copy it again")
    return data


def image_description(path: Path) -> str:
    """ImageDescription of a TIFF file's first image, "" if it has none.

    Raises UnsafeFile if it is no TIFF, InvalidInput if it cannot be opened.
    """
    with path.open("rb") as stream, _open(stream, path.name) as tiff:
        return tiff.pages.first.description


@contextmanager
def _open(stream: BinaryIO, name: str = "the slide") -> Iterator[TiffFile]:
    stream.seek(0)  # tifffile would take a file to begin where the stream is
    with boundary(name), TiffFile(stream) as tiff:
        yield tiff


def _count_levels(tiff: TiffFile) -> int:
    count = len(tiff.pages)
    if not 1 <= count <= _MAX_LEVELS:
        raise UnsafeFile(
            f"the slide has {count} levels, but it must have 1 to {_MAX_LEVELS}; export it again"
        )
    return count


def _page(tiff: TiffFile, number: int) -> TiffPage:
    page = tiff.pages[number]
    if not isinstance(page, TiffPage) or page.tilewidth < 1 or page.tilewidth != page.tilelength:
        raise UnsafeFile(
            f"level {number} of the slide is not stored in square tiles, but it must be; write it "
            "again"
        )
    return page


def _describe(page: TiffPage) -> TileLevel:
    tile = page.tilewidth
    rows, columns = -(-page.imagelength // tile), -(-page.imagewidth // tile)
    return TileLevel(page.imagelength, page.imagewidth, tile, rows, columns)


def _check_index(name: str, value: int, count: int) -> None:
    if not 0 <= value < count:
        raise InvalidInput(f"{name} is {value}, but the slide has {name}s 0 to {count - 1}")
