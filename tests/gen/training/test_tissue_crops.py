"""Crops that say where they lie."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gen.data.images import read_colour
from gen.errors import InvalidInput
from gen.training.tissue import Tiles, TissueConfig, read_tiles
from gen.training.tissue_crops import draw_crops, pixels_of


@pytest.fixture(scope="module")
def tiles(stained: Path) -> Tiles:
    return read_tiles(
        stained, "train", 36, TissueConfig(spacings={"large/*": 0.5, "tiles/b*": 0.5})
    )


def test_a_crop_lies_in_its_file_where_it_says(stained: Path, tiles: Tiles) -> None:
    crops = draw_crops(tiles, 0.5, 32, 40)
    assert {crop.file for crop in crops} == {"large/a.png", "tiles/b_0.png", "tiles/b_1.png"}
    for crop, pixels in zip(crops, pixels_of(tiles, crops, 32), strict=True):
        picture = read_colour(stained / crop.file)
        there = picture[crop.y : crop.y + 32, crop.x : crop.x + 32]
        assert np.array_equal(((pixels + 1) * 127.5).round().movedim(0, -1).numpy(), there)


def test_a_mirrored_file_has_crops_that_begin_before_it(stained: Path) -> None:
    config = TissueConfig(spacings={"tiles/b_1*": 0.5})
    mirrored = read_tiles(stained, "val", 48, config)
    assert mirrored.corners == [(-4, -4)]
    (crop,) = draw_crops(mirrored, 0.5, 48, 3)
    assert (crop.x, crop.y, crop.microns_per_pixel) == (-4, -4, 0.5)


def test_a_seed_means_the_same_crops_all_different(tiles: Tiles) -> None:
    crops = draw_crops(tiles, 0.5, 32, 100, 1)
    assert crops == draw_crops(tiles, 0.5, 32, 100, 1)
    assert len({crop.name for crop in crops}) == len(crops)
    assert crops != draw_crops(tiles, 0.5, 32, 100, 2)
    assert torch.equal(pixels_of(tiles, crops, 32), pixels_of(tiles, crops, 32))


def test_tiles_smaller_than_crops_are_refused(tiles: Tiles) -> None:
    with pytest.raises(InvalidInput, match="tile_size is 36, but patches are 64"):
        draw_crops(tiles, 0.5, 64, 1)
