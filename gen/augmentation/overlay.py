"""Lay what was painted over a picture, so that its own detail stays and no edge is seen."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects

from gen.anomaly.regions import Mask

FEATHER = 0.6  # of the way from a mask's edge to its middle, over which painting fades in


def feathered(mask: Mask, feather: float = FEATHER) -> NDArray[np.float32]:
    """How much of what was painted is shown (H, W): 0 outside the mask, rising to 1 within it.

    The edge is softened inwards only, so the mask says exactly which pixels may change.

    Args:
        mask: (H, W), not empty.
        feather: share of the mask's largest depth over which it rises, above 0 and at most 1.
    """
    ((rows, columns),) = find_objects(mask.astype(np.uint8))
    depth = distance_transform_edt(np.pad(mask[rows, columns], 1))[1:-1, 1:-1]
    rise = np.clip(depth / max(1.0, feather * depth.max()), 0, 1)
    shown = np.zeros(mask.shape, np.float32)
    shown[rows, columns] = rise**2 * (3 - 2 * rise)
    return shown


def laid_over(
    pixels: NDArray[np.float32], change: NDArray[np.float32], mask: Mask, feather: float = FEATHER
) -> NDArray[np.float32]:
    """The picture (H, W) in [0, 1] with a change laid over it; outside the mask, bit for bit.

    What a model cannot draw, as fine noise and letters, is in neither of the two pictures of which
    the change is the difference, and so it stays.

    Args:
        pixels: (H, W) in [0, 1].
        change: (H, W), to be added to them.
        mask: (H, W), where.
        feather: see `feathered`.
    """
    laid = pixels.copy()
    changed = pixels + feathered(mask, feather) * change
    laid[mask] = np.clip(changed, 0, 1)[mask]
    return laid
