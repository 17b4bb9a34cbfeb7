"""Regions, blocks and windows of pictures agree with the whole picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from gen.errors import InvalidInput
from gen.metrics.views import View, bands, blocks_of, shrunk, starts


def view(pixels: NDArray[np.uint8]) -> View:
    """A picture (H, W, 3) in memory."""
    height, width = pixels.shape[:2]
    return View("a", height, width, lambda y, x, h, w: pixels[y : y + h, x : x + w])


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(deadline=None, max_examples=30)
@given(factor=st.floats(1.2, 4), data=st.data())
def test_a_region_of_a_shrunk_picture_is_cut_from_the_whole_shrunk_one(
    factor: float, data: st.DataObject
) -> None:
    # of so little contrast that no filter reaches black or white, where the order of passes matters
    pixels = noise(90, 120) // 4 + 96
    small = shrunk(view(pixels), factor)
    assert (small.height, small.width) == (round(90 / factor), round(120 / factor))
    whole = np.asarray(
        Image.fromarray(pixels).resize((small.width, small.height), Image.Resampling.LANCZOS)
    )
    top = data.draw(st.integers(0, small.height - 1))
    left = data.draw(st.integers(0, small.width - 1))
    height = data.draw(st.integers(1, small.height - top))
    width = data.draw(st.integers(1, small.width - left))
    region = small.read(top, left, height, width).astype(int)
    # places between pixels are rounded to single precision
    assert np.abs(region - whole[top : top + height, left : left + width]).max() <= 1


def test_a_picture_is_not_enlarged_and_hardly_different_magnifications_are_one() -> None:
    picture = view(noise(20, 30))
    assert shrunk(picture, 1.05) is picture
    with pytest.raises(InvalidInput, match=r"enlarged 2\.00 times"):
        shrunk(picture, 0.5)


@settings(deadline=None, max_examples=50)
@given(height=st.integers(1, 60), width=st.integers(1, 60), side=st.integers(1, 20))
def test_blocks_cover_a_picture_once_and_are_no_smaller_than_asked_for(
    height: int, width: int, side: int
) -> None:
    seen = np.zeros((height, width), int)
    for block in blocks_of(View("a", height, width, lambda *_: noise(1, 1)), side):
        rows = slice(block.top, block.top + block.height)
        seen[rows, block.left : block.left + block.width] += 1
        assert block.height >= min(side, height)
        assert block.width >= min(side, width)
    assert (seen == 1).all()


@settings(deadline=None)
@given(length=st.integers(1, 100), side=st.integers(1, 50), stride=st.integers(1, 50))
def test_windows_lie_inside_and_reach_the_end(length: int, side: int, stride: int) -> None:
    found = starts(length, side, stride)
    assert bool(found) == (length >= side)
    assert all(0 <= start <= length - side for start in found)
    if found:
        assert found[0] == 0
        assert found[-1] == length - side
        assert max(np.diff(found), default=0) <= stride


def test_bands_give_the_windows_of_the_picture() -> None:
    pixels = noise(50, 70)
    for top, lefts, windows in bands(view(pixels), 16, 12):
        for left, window in zip(lefts, windows, strict=True):
            assert np.array_equal(window, pixels[top : top + 16, left : left + 16])
    assert not list(bands(view(pixels), 60, 12))
