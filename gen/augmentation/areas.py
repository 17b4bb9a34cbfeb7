"""Where a lesion is painted or taken away: under a mask, within a box, or anywhere in the lungs.

Masks are (H, W) bool on the picture's own pixels, True where something is painted.
"""

import numpy as np
from numpy.typing import NDArray

from gen.anomaly.planted import sites
from gen.anomaly.regions import Mask
from gen.data.model_square import XYWH, ModelSquare
from gen.errors import InvalidInput

# of the side: latents have as few as 16 cells a side, and a lesion needs some of its own
RADIUS = (0.07, 0.15)


def given_area(mask: NDArray[np.generic], shape: tuple[int, int]) -> Mask:
    """A mask that was given for a picture of a shape; what is not 0 is painted.

    Raises:
        InvalidInput: it is of another size, empty, or covers all of the picture.
    """
    painted = same_shape(mask, shape)
    if not painted.any():
        raise InvalidInput("mask is empty, but must say where to paint; mark some pixels")
    if painted.all():
        raise InvalidInput(
            "mask covers all of the picture, so that nothing is left to paint by; mark a part, or"
            " vary the picture"
        )
    return painted


def same_shape(mask: NDArray[np.generic], shape: tuple[int, int]) -> Mask:
    """Where a mask that was given is not 0.

    Raises:
        InvalidInput: it is of another size than the picture.
    """
    check_size(mask.shape, shape)
    marked: Mask = mask != 0
    return marked


def check_size(size: tuple[int, ...], shape: tuple[int, int]) -> None:
    """Raise InvalidInput unless a mask of a size fits a picture of a shape."""
    if size != shape:
        raise InvalidInput(
            f"mask has the shape {size}, but the picture is {shape[0]} x {shape[1]}; give a mask on"
            " the picture's own pixels"
        )


def check_box(box: XYWH, shape: tuple[int, int]) -> None:
    """Raise InvalidInput unless a box (x, y, w, h) lies within a picture of a shape."""
    x, y, w, h = box
    height, width = shape
    inside = min(x, y) >= 0 and x + w <= width and y + h <= height
    if not (np.isfinite(box).all() and w > 0 and h > 0 and inside):
        raise InvalidInput(
            f"box is {box}, but must be (x, y, w, h) with positive sides, within the picture of"
            f" {height} x {width} pixels (height x width)"
        )


def area_of_box(box: XYWH, shape: tuple[int, int]) -> Mask:
    """The ellipse within a box (x, y, w, h), since lesions have no corners.

    Raises:
        InvalidInput: the box does not lie within a picture of this shape, or holds no pixel.
    """
    check_box(box, shape)
    x, y, w, h = box
    height, width = shape
    rows = (np.arange(height)[:, None] + 0.5 - (y + h / 2)) / (h / 2)
    columns = (np.arange(width)[None, :] + 0.5 - (x + w / 2)) / (w / 2)
    area: Mask = rows**2 + columns**2 <= 1
    if not area.any():
        raise InvalidInput(f"box is {box}, which holds no pixel; make it larger")
    return area


def drawn_area(pixels: NDArray[np.floating], square: ModelSquare, seed: int) -> Mask:
    """An uneven ellipse around a place in the lungs, that a seed always draws again.

    Args:
        pixels: (H, W) in [0, 1].
        square: where they lie in the model's square.
        seed: of place, size and shape.

    Raises:
        InvalidInput: the picture shows no lungs.
    """
    seen = square.to_model(pixels) * 2 - 1
    for weights in sites(seen, np.random.default_rng(seed), RADIUS):
        drawn = square.from_model((weights > 0).astype(np.float32)) > 0.5
        if drawn.any() and not drawn.all():
            return drawn
    raise InvalidInput(
        "the picture has no place in the lungs that a lesion was drawn for; give a mask or a box"
    )


def in_square(mask: Mask, square: ModelSquare) -> NDArray[np.float32]:
    """The mask (S, S), 0 or 1, in the model's square; a spot too small for a pixel keeps one."""
    fitted = square.to_model(mask.astype(np.float32))
    return (fitted >= min(0.5, float(fitted.max()))).astype(np.float32)
