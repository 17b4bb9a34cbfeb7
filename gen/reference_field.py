"""The field of embeddings of a reference image.

Graikos et al. 2024 (arXiv 2312.07330), section 3.3. Patches are rows of the network "embedder", so
that fields share forwards with whatever else an engine does.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.embedding_field import EmbeddingField
from gen.encoders.windows import ReadPixels, check_grid, grid_shape, windows_around
from gen.types import ModelCall, Process

PIXELS_A_CALL = 2**21  # 32 patches of 256 pixels a side, and what lies between them


def embed_grid(
    read: ReadPixels, height: int, width: int, pitch: float, patch: int
) -> Process[Tensor]:
    """Embeddings (rows, cols, D) of unit length of patches all over a picture of any size.

    Beyond its edges the picture is mirrored. A few patches at a time are in memory.

    Args:
        read: (top, left, height, width) in pixels -> uint8 (height, width) or
            (height, width, 3); never asked for pixels outside the picture.
        height, width: of the picture, in pixels.
        pitch: pixels between neighbouring points; entry [i, j] is of the patch around
            (y, x) = ((i + 0.5) * pitch, (j + 0.5) * pitch).
        patch: side of a patch, in pixels.

    Raises:
        InvalidInput: a length is not positive.
    """
    check_grid(height, width, pitch, patch)
    count = max(1, PIXELS_A_CALL // max(patch, int(pitch)) ** 2)
    parts = []
    for patches in windows_around(read, height, width, pitch, patch, count):
        images = torch.from_numpy(patches).movedim(-1, 1).float() / 127.5 - 1
        parts.append((yield ModelCall("embedder", (images,))))
    return torch.cat(parts).unflatten(0, grid_shape(height, width, pitch))


def field_like(read: ReadPixels, height: int, width: int, patch: int) -> Process[EmbeddingField]:
    """The field of a reference image of height x width pixels, read in bands.

    Args:
        read, height, width, patch: as for `embed_grid`; embeddings are half a patch apart.
    """
    pitch = patch // 2
    grid = yield from embed_grid(read, height, width, pitch, patch)
    return EmbeddingField(grid, (pitch, pitch), (height, width))


def reader(image: NDArray[np.uint8]) -> ReadPixels:
    """Regions of an image (H, W, 3) in memory, as of a slide."""
    return lambda top, left, height, width: image[top : top + height, left : left + width]
