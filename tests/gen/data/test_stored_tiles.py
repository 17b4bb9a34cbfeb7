"""A viewer gets the bytes that were stored, and nothing else."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from gen.data.stored_tiles import TileLevel, read_tile, tile_levels
from gen.errors import InvalidInput, UnsafeFile

Colours = Callable[[int, int], NDArray[np.uint8]]
WriteSlide = Callable[..., Path]


def test_the_tiles_of_every_level_make_up_the_image(
    write_slide: WriteSlide, colours: Colours
) -> None:
    path = write_slide(colours(300, 700))
    with path.open("rb") as stream:
        levels = tile_levels(stream)
        assert levels == [
            TileLevel(height=300, width=700, tile=256, rows=2, columns=3),
            TileLevel(height=150, width=350, tile=256, rows=1, columns=2),
            TileLevel(height=75, width=175, tile=256, rows=1, columns=1),
        ]
        for number, level in enumerate(levels):
            tiles = [
                [Image.open(BytesIO(read_tile(stream, number, x, y))) for x in range(level.columns)]
                for y in range(level.rows)
            ]
            whole = np.concatenate(
                [np.concatenate([np.asarray(tile) for tile in row], axis=1) for row in tiles]
            )[: level.height, : level.width]
            expected = colours(300, 700)[:: 2**number, :: 2**number]
            assert np.abs(whole.astype(int) - expected).mean() < 3


def test_tiles_at_the_edge_repeat_it(write_slide: WriteSlide, colours: Colours) -> None:
    image = colours(10, 20)
    with write_slide(image).open("rb") as stream:
        tile = np.asarray(Image.open(BytesIO(read_tile(stream, 0, 0, 0)))).astype(int)
    assert tile.shape == (256, 256, 3)
    assert np.abs(tile[-1, -1] - image[-1, -1]).max() < 12


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ((3, 0, 0), "level is 3, but the slide has levels 0 to 2"),
        ((-1, 0, 0), "level is -1"),
        ((0, 3, 0), "column is 3, but the slide has columns 0 to 2"),
        ((0, 0, 2), "row is 2, but the slide has rows 0 to 1"),
        ((0, 0, -1), "row is -1"),
    ],
)
def test_a_tile_that_is_not_there_is_named(
    write_slide: WriteSlide, colours: Colours, place: tuple[int, int, int], reason: str
) -> None:
    with (
        write_slide(colours(300, 700)).open("rb") as stream,
        pytest.raises(InvalidInput, match=reason),
    ):
        read_tile(stream, *place)


def test_only_jpeg_files_are_given_out(write_slide: WriteSlide, colours: Colours) -> None:
    with (
        write_slide(colours(20, 20), compression="deflate").open("rb") as stream,
        pytest.raises(InvalidInput, match="stored as ADOBE_DEFLATE"),
    ):
        read_tile(stream, 0, 0, 0)


def test_what_is_no_tiled_tiff_is_refused(
    tmp_path: Path, write_slide: WriteSlide, colours: Colours
) -> None:
    with pytest.raises(UnsafeFile, match="cannot be decoded"):
        tile_levels(BytesIO(b"no slide"))
    tifffile.imwrite(tmp_path / "strips.tif", colours(20, 20), photometric="rgb")
    with (
        (tmp_path / "strips.tif").open("rb") as stream,
        pytest.raises(UnsafeFile, match="level 0 of the slide is not stored in square tiles"),
    ):
        tile_levels(stream)
    data = write_slide(colours(300, 300)).read_bytes()
    with pytest.raises(UnsafeFile):
        read_tile(BytesIO(data[:-900]), 0, 0, 0)
