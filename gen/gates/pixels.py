"""A made image as its judges see it: whatever a network gave, numbers from 0 to 1."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.data.transforms import fit


def pixels_of(image: Tensor) -> NDArray[np.float32]:
    """Pixels (H, W) of an image (1, 1, H, W); what is not finite is black, the rest is clipped.

    The gate of `gen.gates.sanity` refuses such images; the others must only not fail at them.
    """
    clean = image[0, 0].detach().float().nan_to_num(0.0, 1.0, 0.0).clamp(0, 1)
    pixels: NDArray[np.float32] = clean.cpu().numpy()
    return pixels


def thumbnail(image: Tensor, side: int) -> Tensor:
    """As `gen.metrics.feature_cache.read_thumbnails` makes it of a file: (1, 1, side, side) uint8.

    Args:
        image: (1, 1, H, W).
        side: in pixels.
    """
    small = np.round(fit(pixels_of(image), side) * 255).astype(np.uint8)
    return torch.from_numpy(small)[None, None]
