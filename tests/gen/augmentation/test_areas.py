"""Where lesions are painted: masks and boxes that fit, and places that a seed draws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from gen.anomaly.body import body_mask
from gen.augmentation.areas import area_of_box, drawn_area, given_area, in_square
from gen.data.model_square import ModelSquare
from gen.errors import InvalidInput
from gen.inpainting import to_cells


def chest(height: int, width: int) -> NDArray[np.float32]:
    """Two dark lungs in a grey body, black air beside it."""
    y, x = np.mgrid[:height, :width]
    down, across = y / height, x / width
    picture = np.where(np.hypot(down - 0.5, across - 0.5) < 0.48, 0.7, 0.0)
    for centre in (0.34, 0.66):
        lung = np.hypot((down - 0.45) / 1.8, across - centre) < 0.11
        picture[lung] = 0.35
    return picture.astype(np.float32)


@settings(max_examples=60)
@given(st.integers(20, 200), st.integers(20, 200), st.data())
def test_the_cells_that_are_painted_cover_the_mask(
    height: int, width: int, data: st.DataObject
) -> None:
    x, y = data.draw(st.integers(0, width - 6)), data.draw(st.integers(0, height - 6))
    w, h = data.draw(st.integers(5, width - x)), data.draw(st.integers(5, height - y))
    mask = area_of_box((x, y, w, h), (height, width))
    square = ModelSquare(height, width, 64)
    fitted = in_square(mask, square)
    assert set(np.unique(fitted)) == {0, 1}
    cells = (
        to_cells(torch.from_numpy(fitted)[None, None], 8)[0, 0].numpy().repeat(8, 0).repeat(8, 1)
    )
    covered = square.from_model(cells)
    assert covered[mask].any()
    # at its edge, pixels of the square that the mask covers by less than half are left out
    pixels_a_square = math.ceil(max(height, width) / 64)
    inner = binary_erosion(mask, np.ones((3, 3)), iterations=2 * pixels_a_square)
    assert covered[inner] == pytest.approx(1)


def test_a_box_becomes_the_ellipse_that_touches_its_sides() -> None:
    area = area_of_box((10, 20, 40, 20), (100, 80))
    rows, columns = np.nonzero(area)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 39, 10, 49)
    assert area.sum() == pytest.approx(np.pi * 20 * 10, rel=0.02)
    assert not area[20, 10]


def test_a_spot_smaller_than_a_pixel_of_the_square_is_not_lost() -> None:
    mask = np.zeros((640, 480), bool)
    mask[100, 50] = True
    assert in_square(mask, ModelSquare(640, 480, 32)).sum() >= 1


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((8, 9)), "mask is empty"),
        (np.ones((8, 9)), "mask covers all of the picture"),
        (np.ones((9, 8)), r"mask has the shape \(9, 8\), but the picture is 8 x 9"),
        (np.ones((8, 9, 3)), r"mask has the shape \(8, 9, 3\)"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask: NDArray[np.float64], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        given_area(mask, (8, 9))


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 0, 4),
        (0, 0, 4, -1),
        (-1, 0, 4, 4),
        (6, 0, 4, 4),
        (0, 6, 4, 4),
        (float("nan"), 0, 1, 1),
    ],
)
def test_a_box_outside_the_picture_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(InvalidInput, match="must be \\(x, y, w, h\\) with positive sides"):
        area_of_box(box, (8, 9))


def test_a_box_between_pixels_is_refused() -> None:
    with pytest.raises(InvalidInput, match="holds no pixel"):
        area_of_box((1.6, 1.6, 0.5, 0.5), (8, 9))


@pytest.mark.parametrize(("height", "width"), [(128, 128), (160, 100), (100, 160)])
def test_places_lie_in_the_body_and_belong_to_their_seed(height: int, width: int) -> None:
    picture = chest(height, width)
    square = ModelSquare(height, width, 128)
    body = square.from_model(body_mask(square.to_model(picture) * 2 - 1).astype(np.float32)) > 0
    areas = [drawn_area(picture, square, seed) for seed in range(6)]
    for area in areas:
        assert area.shape == picture.shape
        assert not (area & ~body).any()
        assert 0.005 < area.mean() < 0.2
    assert np.array_equal(areas[0], drawn_area(picture, square, 0))
    assert len({area.tobytes() for area in areas}) == 6


def test_a_picture_without_a_body_has_no_place() -> None:
    with pytest.raises(InvalidInput, match="no place in the lungs"):
        drawn_area(np.zeros((64, 48), np.float32), ModelSquare(64, 48, 64), 0)
