"""What is laid over a picture: exact outside its mask, soft inside, whole in the middle."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gen.augmentation.overlay import feathered, laid_over


def disc(side: int, radius: float) -> "np.ndarray[tuple[int, int], np.dtype[np.bool_]]":
    y, x = np.mgrid[:side, :side] - side // 2
    area: np.ndarray[tuple[int, int], np.dtype[np.bool_]] = np.hypot(y, x) <= radius
    return area


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1))
def test_outside_the_mask_the_picture_is_the_same_bit_for_bit(seed: int, feather: float) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.uniform(0, 1, (24, 17)).astype(np.float32)
    mask = rng.uniform(size=picture.shape) < 0.3
    mask[3:12, 4:9] = True
    change = rng.normal(0, 2, picture.shape).astype(np.float32)
    laid = laid_over(picture, change, mask, feather)
    assert np.array_equal(laid[~mask].view(np.uint32), picture[~mask].view(np.uint32))
    assert 0 <= laid.min() <= laid.max() <= 1


def test_the_change_rises_from_the_edge_and_is_whole_in_the_middle() -> None:
    mask = disc(81, 30)
    shown = feathered(mask, 0.5)
    profile = shown[40, 40:72]
    assert (np.diff(profile) <= 0).all()
    assert profile[0] == profile[14] == 1
    assert 0 < profile[29] < 0.05
    assert not shown[~mask].any()
    laid = laid_over(np.full((81, 81), 0.4, np.float32), np.full((81, 81), 0.25, np.float32), mask)
    assert np.isclose(laid[40, 40], 0.65)


def test_a_mask_at_the_edge_of_a_picture_fades_there_too() -> None:
    mask = np.zeros((20, 20), bool)
    mask[:10, :10] = True
    shown = feathered(mask)
    assert shown[0, 0] < 0.3 < shown[5, 5]
