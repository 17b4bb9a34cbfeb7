"""An image on disk while it is made: rows of RGB in a file without a name."""

from collections.abc import Iterator
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Raster:
    """Rows of an image, written and read from the top; nothing is left when it is forgotten.

    Args:
        width: in pixels.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._file = TemporaryFile()  # noqa: SIM115 (it lives as long as this object)

    def write(self, band: "NDArray[np.uint8]") -> None:
        """Add rows (h, width, 3). Raises OSError if the disk is full."""
        self._file.write(band.tobytes())

    def bands(self, rows: int) -> "Iterator[NDArray[np.uint8]]":
        """All rows, (h, width, 3) with h <= `rows` at a time."""
        import numpy as np

        self._file.seek(0)
        while data := self._file.read(3 * self._width * rows):
            yield np.frombuffer(data, np.uint8).reshape(-1, self._width, 3)

    def close(self) -> None:
        """Give the disk's space back."""
        self._file.close()

    def __del__(self) -> None:
        self.close()
