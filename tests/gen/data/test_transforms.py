"""Fitting keeps aspect and sides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen.data.transforms import fit
from gen.errors import InvalidInput


def disc(height: int, width: int, radius: float) -> np.ndarray:
    """A bright disc in the middle."""
    y, x = np.mgrid[:height, :width]
    return ((y - height / 2 + 0.5) ** 2 + (x - width / 2 + 0.5) ** 2 <= radius**2).astype(float)


def extents(picture: np.ndarray) -> tuple[int, int]:
    """Height and width of what is bright."""
    bright = picture > 0.5
    return int(bright.any(1).sum()), int(bright.any(0).sum())


@given(height=st.integers(40, 120), width=st.integers(40, 120))
def test_a_disc_stays_round_and_fills_what_is_asked(height: int, width: int) -> None:
    picture = disc(height, width, 15)
    for mode, side in (("crop", min(height, width)), ("pad", max(height, width))):
        fitted = fit(picture, 64, mode=mode)
        assert fitted.shape == (64, 64)
        tall, wide = extents(fitted)
        assert abs(tall - wide) <= 2
        assert tall == pytest.approx(30 * 64 / side, abs=2)


def test_a_squashed_picture_gets_its_aspect_back() -> None:
    squashed = np.array(disc(100, 100, 30))
    tall, wide = extents(fit(squashed, 128, orig_size=(100, 200), mode="pad"))
    assert wide == pytest.approx(2 * tall, abs=3)


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
