"""An image and its halves, quarters, eighths, ... from rows that arrive once, top to bottom."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Strip = NDArray[np.uint8]


class PyramidLevel:
    """Gathers rows to strips of `tile` rows, hands each on, and halves it for the level below.

    Memory is two strips of the image's width for all levels together, whatever its height.

    Args:
        height, width: of this level, in pixels.
        tile: rows of a strip, even. The last level fits into a square of this side.
        put: called with (level, strip (h, width, 3)) in order; only a level's last strip has
            h < tile. The array is used again after the call.
    """

    def __init__(
        self,
        height: int,
        width: int,
        tile: int,
        put: Callable[[int, Strip], None],
        number: int = 0,
    ) -> None:
        self.height, self.width = height, width
        self.number = number
        self.rows = 0  # received
        self.below: PyramidLevel | None = None
        if max(height, width) > tile:
            self.below = PyramidLevel(-(-height // 2), -(-width // 2), tile, put, number + 1)
        self._put = put
        self._strip = np.empty((min(tile, height), width, 3), dtype=np.uint8)
        self._filled = 0

    @property
    def levels(self) -> list["PyramidLevel"]:
        """This level and those below it, largest first."""
        return [self, *(self.below.levels if self.below else [])]

    def add(self, rows: Strip) -> None:
        """Take the next rows (h, width, 3), any h up to what is missing."""
        while len(rows):
            taken = min(len(rows), len(self._strip) - self._filled)
            self._strip[self._filled : self._filled + taken] = rows[:taken]
            self._filled += taken
            self.rows += taken
            rows = rows[taken:]
            if self._filled == len(self._strip) or self.rows == self.height:
                self._pass_on(self._strip[: self._filled])
                self._filled = 0

    def _pass_on(self, strip: Strip) -> None:
        self._put(self.number, strip)
        if self.below:
            self.below.add(halve(strip))


def halve(image: Strip) -> Strip:
    """Average squares of 2 x 2 pixels; an odd last row or column stands for two."""
    even = np.pad(image, ((0, len(image) % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")
    total = even[0::2, 0::2].astype(np.uint16)
    for row, column in ((0, 1), (1, 0), (1, 1)):
        total += even[row::2, column::2]
    return ((total + 2) // 4).astype(np.uint8)
