"""Square windows around the points of a grid over a picture, mirrored at its edges."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gen.errors import InvalidInput

ReadPixels = Callable[[int, int, int, int], NDArray[np.uint8]]
"""(top, left, height, width) in pixels -> (height, width) or (height, width, 3)."""


def check_grid(height: int, width: int, pitch: float, field: int) -> None:
    """Refuse lengths, in pixels, that make no grid.

    Raises:
        InvalidInput: one is not positive.
    """
    lengths = {"height": height, "width": width, "pitch": pitch, "field": field}
    for name, length in lengths.items():
        if not (math.isfinite(length) and length > 0):
            raise InvalidInput(f"{name} is {length}, but must be a positive number of pixels")


def grid_shape(height: int, width: int, pitch: float) -> tuple[int, int]:
    """(rows, cols) of the grid that covers a picture, of which the last may reach beyond it."""
    # 21 / 1.4 is 15 and a hair: a hair needs no row of its own
    rows, cols = (max(1, math.ceil(length / pitch - 1e-9)) for length in (height, width))
    return rows, cols


def windows_around(
    read: ReadPixels, height: int, width: int, pitch: float, field: int, count: int
) -> Iterator[NDArray[np.uint8]]:
    """Windows (n, field, field, C), n <= count, around each point of a grid, row by row.

    Point (i, j) lies at (y, x) = ((i + 0.5) * pitch, (j + 0.5) * pitch) pixels. A window whose
    edges would fall between pixels begins half a pixel earlier.
    """
    rows, cols = grid_shape(height, width, pitch)
    for row in range(rows):
        ys = _around(row, pitch, field, height)
        for first, end in pairwise([*range(0, cols, count), cols]):
            xs = np.stack([_around(col, pitch, field, width) for col in range(first, end)])
            top, left = int(ys.min()), int(xs.min())
            block = read(top, left, int(ys.max()) + 1 - top, int(xs.max()) + 1 - left)
            windows = block.reshape(*block.shape[:2], -1)[(ys - top)[:, None], (xs - left)[:, None]]
            yield windows


def _around(index: int, pitch: float, field: int, length: int) -> NDArray[np.intp]:
    """(field,) pixels around a point of the grid, mirrored into [0, length)."""
    start = math.floor((index + 0.5) * pitch - field / 2)
    period = max(1, 2 * (length - 1))
    places = np.arange(start, start + field) % period
    return np.minimum(places, period - places)
