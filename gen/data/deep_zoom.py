"""A slide as a Deep Zoom image: a folder of small JPEG files that any web server can give out."""

import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from gen.data.atomic import atomic_file, check_writable
from gen.data.images import read_colour
from gen.data.limits import boundary
from gen.data.slide import SLIDE_LIMITS, is_picture, open_with_openslide
from gen.errors import InvalidInput

if TYPE_CHECKING:
    from openslide import AbstractSlide
    from openslide.deepzoom import DeepZoomGenerator

_TILE, _OVERLAP, _QUALITY = 254, 1, 90  # 254 + 2 * 1 is a power of two


def write_deep_zoom(slide_path: str | Path, out: str | Path) -> Path:
    """Write `out`, a .dzi file, and the tiles in the folder <stem>_files beside it.

    The tiles are in place before the .dzi file appears; an exception leaves neither.

    Args:
        slide_path: what `open_slide` opens, such as the result of `SlideWriter`.
        out: path that ends in .dzi; neither it nor its folder of tiles may exist.

    Returns the folder of tiles.

    Raises:
        InvalidInput: `out` has another ending or exists, the disk is full, or OpenSlide is not
            installed.
        UnsafeFile: the slide cannot be read.
    """
    out = Path(out)
    tiles = out.with_name(f"{out.stem}_files")
    _check(out, tiles)
    temporary = out.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with _open(Path(slide_path)) as slide:
            from openslide.deepzoom import DeepZoomGenerator

            generator = DeepZoomGenerator(slide, tile_size=_TILE, overlap=_OVERLAP)
            _write_tiles(generator, temporary, Path(slide_path).name)
        temporary.rename(tiles)
        with atomic_file(out) as stream:
            stream.write(generator.get_dzi("jpeg").encode())
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not out.exists():
            shutil.rmtree(tiles, ignore_errors=True)
        if isinstance(error, OSError):
            raise InvalidInput(
                f"{out} cannot be written: {error.strerror}; free some space or choose another "
                "folder"
            ) from error
        raise
    return tiles


def _open(path: Path) -> "AbstractSlide":
    if not is_picture(path):
        return open_with_openslide(path)
    from openslide import ImageSlide

    return ImageSlide(Image.fromarray(read_colour(path, SLIDE_LIMITS)))


def _write_tiles(generator: "DeepZoomGenerator", folder: Path, name: str) -> None:
    for level, (columns, rows) in enumerate(generator.level_tiles):
        (folder / str(level)).mkdir(parents=True)
        for row in range(rows):
            for column in range(columns):
                with boundary(name):
                    tile = generator.get_tile(level, (column, row))
                tile.save(folder / str(level) / f"{column}_{row}.jpeg", quality=_QUALITY)


def _check(out: Path, tiles: Path) -> None:
    if out.suffix != ".dzi":
        raise InvalidInput(f"out is {out}, but a Deep Zoom image ends in .dzi; rename it")
    check_writable(out)
    if tiles.exists():
        raise InvalidInput(
            f"{tiles} exists and is not overwritten; choose another name or remove it"
        )
