"""Every level is the mean of the one above, whatever the size and however rows arrive."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gen.data.pyramid import PyramidLevel, halve


def mean_of_squares(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The definition, pixel by pixel."""
    height, width = -(-image.shape[0] // 2), -(-image.shape[1] // 2)
    result = np.empty((height, width, 3), dtype=np.uint8)
    for y in range(height):
        for x in range(width):
            square = image[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(float)
            result[y, x] = np.floor(square.mean(axis=(0, 1)) + 0.5)
    return result


@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_halving_averages_squares_and_what_is_left_of_them_at_the_edges(
    height: int, width: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    np.testing.assert_array_equal(halve(image), mean_of_squares(image))


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 40),
    cuts=st.lists(st.integers(1, 90), max_size=4),
)
def test_strips_put_together_are_the_image_and_its_halves(
    height: int, width: int, cuts: list[int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    strips: dict[int, list[NDArray[np.uint8]]] = {}
    top = PyramidLevel(
        height, width, 8, lambda level, strip: strips.setdefault(level, []).append(strip.copy())
    )
    for rows in np.split(image, sorted(cut for cut in cuts if cut < height)):
        top.add(rows)
    expected = image
    assert sorted(strips) == list(range(len(top.levels)))
    for number, level in enumerate(top.levels):
        assert (level.height, level.width) == expected.shape[:2]
        assert all(len(strip) == 8 for strip in strips[number][:-1])
        np.testing.assert_array_equal(np.concatenate(strips[number]), expected)
        expected = halve(expected)
    assert max(top.levels[-1].height, top.levels[-1].width) <= 8
