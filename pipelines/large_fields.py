"""Where fields of embeddings come from: an image, one or few images that are varied, or words.

Graikos et al. 2024 (arXiv 2312.07330), sections 3.3 and 3.4. Each is a process: patches are rows of
the network "embedder", so that fields share forwards with whatever else an engine does.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.denoising import fresh_scheduler
from gen.embedding_field import EmbeddingField
from gen.encoders.windows import ReadPixels, check_grid, grid_shape, windows_around
from gen.errors import InvalidInput
from gen.grid_prior import draw_grid
from gen.types import ModelCall, Process

PIXELS_A_CALL = 2**21  # 32 patches of 256 pixels a side, and what lies between them


def embed_grid(
    read: ReadPixels, height: int, width: int, pitch: float, patch: int
) -> Process[Tensor]:
    """`Encoder.embed_grid` as a process: embeddings (rows, cols, D) of unit length.

    A few patches at a time are in memory.

    Args:
        read: (top, left, height, width) in pixels -> uint8 (height, width, 3).
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


def field_varied(
    images: Sequence[NDArray[np.uint8]],
    height: int,
    width: int,
    patch: int,
    generator: torch.Generator | None = None,
) -> Process[EmbeddingField]:
    """A field that shows everywhere something of the images (h, w, 3): one or few, any size.

    Embeddings of all their patches are strewn over the field, two patches apart.

    Raises:
        InvalidInput: there is no image.
    """
    if not images:
        raise InvalidInput("images is empty, but at least one must be varied")
    fields = []
    for image in images:
        rows, columns = image.shape[:2]
        fields.append((yield from field_like(reader(image), rows, columns, patch)))
    pool = torch.cat([field.grid.flatten(0, 1) for field in fields])
    pitch = 2 * patch
    rows, columns = max(1, -(-height // pitch)), max(1, -(-width // pitch))
    chosen = torch.randint(len(pool), (rows, columns), generator=generator)
    return EmbeddingField(pool[chosen], (height / rows, width / columns), (height, width))


def field_from_text(
    tokens: Tensor,
    height: int,
    width: int,
    prior: Any,
    pitch: int,
    scheduler: Any,
    num_inference_steps: int,
    guidance_scale: float,
    generator: torch.Generator,
    folder: Path | None,
) -> Process[EmbeddingField]:
    """A field drawn by the prior for a sentence.

    Args:
        tokens: (2, L) of the sentence and of the empty one, where the text encoder is.
        prior: the U-Net of grids, for their size, device and dtype.
        pitch: pixels between the embeddings of its grids.
        scheduler: of the prior; a copy works.
        folder: for the unfinished grid; None is the system's for temporary files.
    """
    size = max(1, -(-height // pitch)), max(1, -(-width // pitch))
    states = yield ModelCall("text_encoder", (tokens,))
    states = states.to(prior.device, prior.dtype)
    with TemporaryDirectory(dir=folder) as place:
        grid = yield from draw_grid(
            states[:1],
            states[1:],
            size,
            int(prior.config.sample_size),
            int(prior.config.in_channels),
            fresh_scheduler(scheduler, num_inference_steps),
            guidance_scale,
            generator,
            Path(place),
        )
    return EmbeddingField(grid, (pitch, pitch), (height, width))


def reader(image: NDArray[np.uint8]) -> ReadPixels:
    """Regions of an image (H, W, 3) in memory, as of a slide."""
    return lambda top, left, height, width: image[top : top + height, left : left + width]
