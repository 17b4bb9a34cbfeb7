"""A map of values in colour over the grey picture that it belongs to."""

import numpy as np
from numpy.typing import NDArray

from gen.errors import InvalidInput

# From dark violet to pale yellow, ever lighter, so that more is brighter in print and to eyes that
# tell few colours apart. Between these the colours are linear.
_HEAT = np.array(
    [
        *([0, 0, 4], [33, 12, 74], [87, 16, 110], [138, 34, 106], [188, 55, 84]),
        *([228, 90, 49], [249, 142, 9], [249, 203, 53], [252, 255, 164]),
    ],
    np.float32,
)
_CONTOUR = np.array([0, 255, 255], np.float32)  # cyan is no colour of the heat


def heat_overlay(
    pixels: NDArray[np.floating],
    heat: NDArray[np.floating],
    mask: NDArray[np.bool_] | None = None,
    *,
    opacity: float = 0.7,
    contour_width: int | None = None,
) -> NDArray[np.uint8]:
    """Draw a map over its picture: RGB (H, W, 3).

    Args:
        pixels: (H, W) in [0, 1].
        heat: (H, W) in [0, 1]; where it is 0 the picture stays as it is.
        mask: (H, W), outlined along the inner edge of what is True; None: no outline.
        opacity: in [0, 1], of the colour where `heat` is 1.
        contour_width: pixels; None: 1 for each 400 of the shorter side, at least 1.

    Raises InvalidInput if the arrays differ in shape or leave their range.
    """
    _check(pixels, heat, mask, opacity)
    grey = np.asarray(pixels, np.float32)[..., None] * 255
    alpha = np.asarray(heat, np.float32)[..., None] * np.float32(opacity)
    colours = grey * (1 - alpha) + heat_colours(heat) * alpha
    if mask is not None:
        width = contour_width or max(1, round(min(pixels.shape) / 400))
        colours[mask & ~_eroded(mask, width)] = _CONTOUR
    return np.rint(colours).astype(np.uint8)


def heat_colours(heat: NDArray[np.floating]) -> NDArray[np.float32]:
    """Colours (..., 3) in [0, 255] of values in [0, 1]; a larger value is lighter."""
    places = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(heat, places, _HEAT[:, each]) for each in range(3)], axis=-1).astype(
        np.float32
    )


def _eroded(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """What lies more than `width` steps inside; the picture's edge counts as outside."""
    for _ in range(width):
        padded = np.pad(mask, 1)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _check(
    pixels: NDArray[np.floating],
    heat: NDArray[np.floating],
    mask: NDArray[np.bool_] | None,
    opacity: float,
) -> None:
    if pixels.ndim != 2 or pixels.size == 0:
        raise InvalidInput(f"pixels has the shape {pixels.shape}, but (H, W) is needed")
    for name, array in (("pixels", pixels), ("heat", heat), ("opacity", np.asarray(opacity))):
        if not ((array >= 0) & (array <= 1)).all():
            raise InvalidInput(f"{name} leaves [0, 1]; divide by its largest value, or clip")
    for name, array in (("heat", heat), ("mask", pixels if mask is None else mask)):
        if array.shape != pixels.shape:
            raise InvalidInput(
                f"{name} has the shape {array.shape}, but the picture has {pixels.shape}; bring it "
                "to the picture's own pixels first"
            )
    if mask is not None and mask.dtype != bool:
        raise InvalidInput(f"mask has the type {mask.dtype}, but must be bool; compare it first")
