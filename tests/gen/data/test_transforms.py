"""Fitting keeps aspect and sides."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen.data.transforms import Mode, fit, fit_boxes
from gen.errors import InvalidInput


def ellipse(height: int, width: int, tall: float, wide: float) -> np.ndarray:
    """A bright ellipse with these half axes in the middle, its edge a few pixels soft."""
    y, x = np.mgrid[:height, :width]
    radius = np.hypot((y - height / 2 + 0.5) / tall, (x - width / 2 + 0.5) / wide)
    return 1 / (1 + np.exp((radius - 1) * 25))


def half_axes(picture: np.ndarray) -> tuple[float, float]:
    """Vertical and horizontal half axis of a bright ellipse: twice the deviation of its mass."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    mass = picture / picture.sum()
    tall, wide = (np.sqrt((mass * (each - (mass * each).sum()) ** 2).sum()) for each in (y, x))
    return 2 * tall, 2 * wide


@given(height=st.integers(40, 120), width=st.integers(40, 120))
def test_a_disc_stays_round_and_fills_what_is_asked(height: int, width: int) -> None:
    picture = ellipse(height, width, 12, 12)
    (radius, _) = half_axes(picture)
    for mode, side in (("crop", min(height, width)), ("pad", max(height, width))):
        fitted = fit(picture, 64, mode=mode)
        assert fitted.shape == (64, 64)
        assert half_axes(fitted) == pytest.approx([radius * 64 / side] * 2, rel=0.03)


@pytest.mark.parametrize(("mode", "side"), [("crop", 100), ("pad", 200)])
def test_a_circle_squashed_before_it_was_stored_is_round_again(
    mode: Literal["crop", "pad"], side: int
) -> None:
    stored = ellipse(100, 100, 30, 15)
    radius, _ = half_axes(stored)
    fitted = fit(stored, 128, orig_size=(100, 200), mode=mode)
    assert half_axes(fitted) == pytest.approx([radius * 128 / side] * 2, rel=0.02)


def test_crop_cuts_the_ends_and_pad_keeps_them_between_black() -> None:
    bright = np.ones((40, 80))
    assert fit(bright, 32).min() == 1
    padded = fit(bright, 32, mode="pad")
    assert padded[8:24].min() == 1
    assert padded[:8].max() == padded[24:].max() == 0


def test_left_stays_left_and_values_stay_in_range() -> None:
    picture = np.zeros((50, 80))
    picture[:, :40] = 1
    fitted = fit(picture, 32)
    assert fitted[:, :12].min() > 0.9
    assert fitted[:, -12:].max() < 0.1
    assert fitted.min() >= 0
    assert fitted.max() <= 1


@pytest.mark.parametrize(
    ("shape", "size", "orig", "message"),
    [
        ((4, 4, 3), 8, None, "shape"),
        ((0, 4), 8, None, "shape"),
        ((4, 4), 0, None, "size is 0"),
        ((4, 4), 8, (0, 4), "orig_size"),
    ],
)
def test_what_is_no_picture_is_refused(
    shape: tuple[int, ...], size: int, orig: tuple[int, int] | None, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        fit(np.zeros(shape), size, orig)


def test_above_stays_above() -> None:
    picture = np.zeros((80, 50))
    picture[:40] = 1
    fitted = fit(picture, 32, mode="pad")
    assert fitted[:12, 10:20].min() > 0.9
    assert fitted[-12:].max() < 0.1


def test_a_square_of_the_right_size_is_left_alone() -> None:
    picture = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    assert np.array_equal(fit(picture, 32), picture)


@given(
    stored=st.tuples(st.integers(60, 140), st.integers(60, 140)),
    orig=st.none() | st.tuples(st.integers(80, 300), st.integers(80, 300)),
    mode=st.sampled_from(["crop", "pad"]),
)
def test_a_box_lies_around_what_it_lay_around(
    stored: tuple[int, int], orig: tuple[int, int] | None, mode: Mode
) -> None:
    picture = np.zeros(stored)
    picture[20:41, 24:49] = 1
    fitted = fit(picture, 128, orig, mode)
    (box,) = fit_boxes(np.array([[20, 24, 41, 49]]), stored, 128, orig, mode)
    rows, columns = (np.flatnonzero((fitted > 0.5).any(axis)) for axis in (1, 0))
    if len(rows):  # else all of it was cut off
        seen = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        assert box == pytest.approx(seen, abs=1.1)


def test_a_box_that_is_cut_off_has_no_area() -> None:
    (box,) = fit_boxes(np.array([[0.0, 0, 10, 10]]), (50, 100), 50)
    assert box[1] == box[3] == 0
