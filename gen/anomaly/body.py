"""Where a picture shows the body, and not the air beside it."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, binary_fill_holes, gaussian_filter, label

from gen.anomaly.regions import Mask

_AIR = -0.84  # a grey level of 20: darker at the edge of a picture is beside the body


def body_mask(picture: NDArray[np.float32]) -> Mask:
    """The largest thing that is not air, without holes and without its rim.

    Args:
        picture: (S, S) in [-1, 1].

    Returns:
        (S, S); nothing is True where all is air.
    """
    side = len(picture)
    solid = gaussian_filter(picture, side / 64) > _AIR
    parts, count = label(solid)
    if not count:
        return solid
    largest = parts == np.bincount(parts[parts > 0]).argmax()
    filled: Mask = binary_fill_holes(largest)
    return binary_erosion(filled, iterations=max(1, side // 32))
