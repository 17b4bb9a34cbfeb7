"""Fit radiographs to a square without squashing or flipping them."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gen.errors import InvalidInput

Mode = Literal["crop", "pad"]


def fit(
    pixels: NDArray[np.floating],
    size: int,
    orig_size: tuple[int, int] | None = None,
    mode: Mode = "crop",
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
    target = _resized(orig_size or pixels.shape, size, mode)[::-1]
    picture = Image.fromarray(np.asarray(pixels, np.float32))
    resized = (
        picture if picture.size == target else picture.resize(target, Image.Resampling.LANCZOS)
    )
    return _to_square(np.clip(np.asarray(resized, np.float32), 0, 1), size)


def fit_boxes(
    boxes: NDArray[np.floating],
    stored_size: tuple[int, int],
    size: int,
    orig_size: tuple[int, int] | None = None,
    mode: Mode = "crop",
) -> NDArray[np.float64]:
    """Where boxes lie once `fit` has made a square of their picture.

    Args:
        boxes: (B, 4), each (top, left, bottom, right) in pixels of the stored picture.
        stored_size: its (height, width).
        size, orig_size, mode: see `fit`.

    Returns:
        (B, 4) in pixels of the square; what is cut off is left out, which may be all of a box.

    Raises:
        InvalidInput: the size is not positive.
    """
    resized = _resized(orig_size or stored_size, size, mode)
    scale = np.array(resized) / stored_size
    room = size - np.array(resized)
    moved = np.where(room > 0, room // 2, -(-room // 2))
    fitted: NDArray[np.float64] = np.clip(boxes * np.tile(scale, 2) + np.tile(moved, 2), 0, size)
    return fitted


def _resized(true_size: tuple[int, ...], size: int, mode: Mode) -> tuple[int, int]:
    """(height, width) before it is cut or padded."""
    if size < 1 or min(true_size) < 1:
        raise InvalidInput(f"size is {size} and orig_size {true_size}; sides must be at least 1")
    side = min(true_size) if mode == "crop" else max(true_size)
    height, width = (max(1, round(each * size / side)) for each in true_size)
    return height, width


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
