"""Tiles of tissue: magnifications, what is held out, and the eight positions of a square."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gen.errors import InvalidInput
from gen.training.tissue import (
    Region,
    TissueConfig,
    cut,
    grow,
    read_regions,
    read_tiles,
    rescale,
    turn,
)

SPACINGS = {"large/*": 0.5, "tiles/b_*": 0.25}


def region_of(pixels: NDArray[np.uint8], microns_per_pixel: float) -> Region:
    return Region(pixels, microns_per_pixel, {})


def stripes(height: int, width: int) -> NDArray[np.uint8]:
    """Dark and bright columns of eight pixels."""
    row = np.where(np.arange(width) // 8 % 2, 200, 40).astype(np.uint8)
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def test_the_first_pattern_that_fits_a_file_gives_its_spacing(stained: Path) -> None:
    regions = read_regions(stained, "train", {"tiles/b_1*": 2.0, **SPACINGS})
    assert [(r.fields["file"], r.microns_per_pixel) for r in regions] == [
        ("large/a.png", 0.5),
        ("tiles/b_0.png", 0.25),
        ("tiles/b_1.png", 2.0),
    ]


def test_files_without_a_pattern_and_of_other_splits_are_left_out(stained: Path) -> None:
    (only,) = read_regions(stained, "test", {"tiles/*": 0.5})
    assert only.fields["file"] == "tiles/c.png"
    with pytest.raises(InvalidInput, match="like any of: slides"):
        read_regions(stained, "train", {"slides/*": 0.5})


def test_half_the_magnification_has_half_the_pixels_and_the_same_tissue() -> None:
    small = rescale(region_of(stripes(64, 96), 0.5), 1.0)
    assert small is not None
    assert small.pixels.shape == (32, 48, 3)
    assert np.abs(small.pixels[16, 2::8].astype(int) - 40).max() < 12  # stripes are now 4 wide
    assert np.abs(small.pixels[16, 6::8].astype(int) - 200).max() < 12


def test_a_region_is_never_enlarged() -> None:
    assert rescale(region_of(stripes(64, 64), 1.0), 0.5) is None
    nearly = rescale(region_of(stripes(64, 64), 0.499), 0.5)
    assert nearly is not None
    assert nearly.pixels.shape == (64, 64, 3)


def test_what_is_smaller_than_a_tile_is_mirrored() -> None:
    grown = grow(stripes(10, 24), 32)
    assert grown.shape == (32, 32, 3)
    assert np.array_equal(grown[:, 4:28], np.repeat(stripes(1, 24), 32, axis=0))
    assert np.array_equal(grown[:, :4], grown[:, 4:8][:, ::-1])


def test_a_region_far_smaller_than_a_tile_gives_none() -> None:
    assert len(list(cut(region_of(stripes(26, 40), 0.5), 32))) == 1
    assert not list(cut(region_of(stripes(25, 40), 0.5), 32))


def test_tiles_share_no_pixel_and_empty_ones_are_left_out() -> None:
    pixels = np.full((70, 100, 3), 250, np.uint8)
    pixels[:32, 32:64] = 100
    ((corner, tile),) = cut(region_of(pixels, 0.5), 32)
    assert (tile == 100).all()
    assert corner == (0, 32)


def test_every_tenth_tile_is_held_out(stained: Path) -> None:
    config = TissueConfig(spacings=SPACINGS, magnifications=(0.5, 1.0))
    train = read_tiles(stained, "train", 20, config)
    val = read_tiles(stained, "val", 20, config)
    # 10 x 7 at 0.5 and 5 x 3 at 1.0 of the region; the tiles are 32 and 20 a side at 0.5, one tile
    # each; 16 at 1.0, mirrored to one; and 10, too small
    assert len(train) + len(val) == 70 + 15 + 2 + 1
    assert len(val) == 9
    assert sorted(set(train.microns_per_pixel.tolist())) == [0.5, 1.0]
    assert train.images.shape[1:] == (3, 20, 20)
    assert not any(torch.equal(one, other) for one in val.images for other in train.images)


def test_a_square_has_eight_positions_equally_often() -> None:
    square = torch.arange(9.0).view(1, 1, 3, 3)
    turned = turn(square.expand(4000, 1, 3, 3), torch.Generator().manual_seed(0))
    positions, counts = turned.flatten(1).unique(dim=0, return_counts=True)
    assert len(positions) == 8
    assert counts.min() > 420  # 500 each; the deviation is 21
