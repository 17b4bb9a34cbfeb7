"""Fit radiographs to a square without squashing or flipping them."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gen.errors import InvalidInput


def fit(
    pixels: NDArray[np.floating],
    size: int,
    orig_size: tuple[int, int] | None = None,
    mode: Literal["crop", "pad"] = "crop",
) -> NDArray[np.float32]:
    """Resize once, to the true aspect, then crop or pad to a square.

    Args:
        pixels: (H, W) in [0, 1].
        size: side of the result in pixels.
        orig_size: (height, width) before somebody squashed the picture; None: it was not.
        mode: crop cuts the longer side's ends off; pad keeps all and adds black.

    Returns:
        (size, size) in [0, 1]; left stays left.

    Raises:
        InvalidInput: pixels are no picture, or the size is not positive.
    """
    if pixels.ndim != 2 or not pixels.size:
        raise InvalidInput(f"pixels have the shape {pixels.shape}, but must be (height, width)")
    if size < 1 or min(orig_size or (1, 1)) < 1:
        raise InvalidInput(f"size is {size} and orig_size {orig_size}; sides must be at least 1")
    height, width = orig_size or pixels.shape
    side = min(height, width) if mode == "crop" else max(height, width)
    target = tuple(max(1, round(each * size / side)) for each in (width, height))
    picture = Image.fromarray(np.asarray(pixels, np.float32))
    resized = (
        picture if picture.size == target else picture.resize(target, Image.Resampling.LANCZOS)
    )
    return _to_square(np.clip(np.asarray(resized, np.float32), 0, 1), size)


def _to_square(pixels: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Cut or pad each axis around its centre."""
    for axis in (0, 1):
        room = size - pixels.shape[axis]
        if room > 0:
            margins = [(0, 0), (0, 0)]
            margins[axis] = (room // 2, room - room // 2)
            pixels = np.pad(pixels, margins)
        else:
            pixels = np.take(pixels, range(-room // 2, -room // 2 + size), axis)
    return np.ascontiguousarray(pixels)
