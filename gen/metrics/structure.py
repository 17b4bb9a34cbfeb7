"""Structure of tissue, whatever its stain: what is laid over a training tile to know a copy.

As `gen.metrics.aligned` does for radiographs: between two scales, at the same contrast everywhere.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

SIDE = 64  # of a tile's structure: nuclei, but neither pixel noise nor what an autoencoder loses
LUMA = (0.299, 0.587, 0.114)
# Standard deviations in pixels of a structure. What is coarser, and what all tissue shares, is
# brightness; over the last, contrast is made even.
_FINE, _COARSE, _EVEN = 0.7, 4.0, 8.0
CONTEXT = 16  # pixels of a structure around a tile that matter for the tile's
_FAINT = 3.0  # grey levels: glass stays flat


def factor_of(tile_size: int) -> int:
    """Pixels of a picture, a side, to one of the structure of tiles of that size."""
    return max(1, tile_size // SIDE)


def structure(pixels: NDArray[np.uint8], factor: int) -> Tensor:
    """Structure (H // factor, W // factor) float32, of the order of 1, of pixels (H, W, 3)."""
    grey = pixels.astype(np.float32) @ np.array(LUMA, np.float32)
    height, width = (side // factor for side in grey.shape)
    cut = grey[: height * factor, : width * factor]
    small = cut.reshape(height, factor, width, factor).mean((1, 3))
    band = gaussian_filter(small, _FINE) - gaussian_filter(small, _COARSE)
    contrast = gaussian_filter(np.square(band), _EVEN)
    return torch.from_numpy(band / np.sqrt(contrast + _FAINT**2))


def orientations(structures: Tensor) -> list[Tensor]:
    """The eight positions of squares (N, S, S), as `gen.metrics.aligned.similarity` takes them."""
    turned = [structures.rot90(quarter, (-2, -1)) for quarter in range(4)]
    return [torch.stack([each, each.flip(-1)], 1) for each in turned]
