"""Heat is brighter where there is more of it, and leaves the rest of the picture alone."""

from typing import Any

import numpy as np
import pytest

from gen.data.heat_overlay import heat_colours, heat_overlay
from gen.errors import InvalidInput

PICTURE = np.linspace(0, 1, 6 * 9).reshape(6, 9)


def lightness(colours: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB in [0, 255]."""
    linear = np.where(colours <= 10.3, colours / 3294.6, ((colours / 255 + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


def test_more_heat_is_always_lighter_and_by_about_as_much() -> None:
    steps = np.diff(lightness(heat_colours(np.linspace(0, 1, 33))))
    assert steps.min() > 0.4 * steps.mean()
    assert steps.max() < 2 * steps.mean()


def test_without_heat_the_picture_stays_grey() -> None:
    drawn = heat_overlay(PICTURE, np.zeros((6, 9)))
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn, np.repeat(np.rint(PICTURE * 255)[..., None], 3, axis=-1))


def test_colour_comes_in_by_the_value_of_the_map_and_in_its_place() -> None:
    heat = np.zeros((6, 9))
    heat[1, 7], heat[4, 2] = 1, 0.5
    drawn = heat_overlay(PICTURE, heat, opacity=0.8)
    for (row, column), alpha in (((1, 7), 0.8), ((4, 2), 0.4)):
        colour = heat_colours(heat[row, column])
        expected = PICTURE[row, column] * 255 * (1 - alpha) + colour * alpha
        np.testing.assert_allclose(drawn[row, column], expected, atol=0.51)
    changed = (drawn != heat_overlay(PICTURE, heat * 0)).any(axis=-1)
    assert set(zip(*np.nonzero(changed), strict=True)) == {(1, 7), (4, 2)}


def test_the_outline_runs_inside_the_mask_and_along_the_edge_of_the_picture() -> None:
    mask = np.zeros((6, 9), bool)
    mask[1:5, 5:9] = True
    drawn = heat_overlay(PICTURE, np.zeros((6, 9)), mask)
    outline = (drawn == [0, 255, 255]).all(axis=-1)
    expected = mask.copy()
    expected[2:4, 6:8] = False
    np.testing.assert_array_equal(outline, expected)
    thick = heat_overlay(PICTURE, np.zeros((6, 9)), mask, contour_width=2)
    np.testing.assert_array_equal((thick == [0, 255, 255]).all(axis=-1), mask)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pixels": np.zeros((6, 9, 3))}, r"\(H, W\) is needed"),
        ({"pixels": PICTURE * 255}, "pixels leaves"),
        ({"heat": PICTURE - 0.1}, "heat leaves"),
        ({"heat": PICTURE * np.nan}, "heat leaves"),
        ({"heat": PICTURE.T}, r"heat has the shape \(9, 6\)"),
        ({"mask": np.ones((9, 6), bool)}, r"mask has the shape \(9, 6\)"),
        ({"mask": np.ones((6, 9))}, "must be bool"),
        ({"opacity": 2}, "opacity leaves"),
    ],
)
def test_arrays_that_cannot_be_drawn_are_named(changes: dict[str, Any], reason: str) -> None:
    arguments = {"pixels": PICTURE, "heat": PICTURE, **changes}
    with pytest.raises(InvalidInput, match=reason):
        heat_overlay(**arguments)
