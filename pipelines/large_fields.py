"""Fields of embeddings: from images that are varied, around a part of one, or from words.

Graikos et al. 2024 (arXiv 2312.07330), section 3.4; `gen.reference_field` is one image's.
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
from gen.errors import InvalidInput
from gen.grid_prior import draw_grid
from gen.known_region import KnownRegion
from gen.reference_field import field_like, reader
from gen.types import ModelCall, Process


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
    return _strewn(pool, height, width, patch, generator)


def field_around(
    known: KnownRegion,
    height: int,
    width: int,
    patch: int,
    generator: torch.Generator | None = None,
) -> Process[EmbeddingField]:
    """What is kept of a real image stays what it is; elsewhere is something of it, as varied."""
    rows, columns = known.pixels.shape[:2]
    own = yield from field_like(reader(known.pixels), rows, columns, patch)
    kept = torch.from_numpy(known.kept)
    places = _centres((len(own.grid), own.grid.shape[1]), own.pitch)
    pixels = places.long().minimum(torch.tensor(kept.shape) - 1)
    chosen = kept[pixels[:, 0], pixels[:, 1]]
    pool = own.grid.flatten(0, 1)[chosen if chosen.any() else slice(None)]
    strewn = _strewn(pool, height, width, patch, generator)
    pitch = patch // 2
    shape = max(1, -(-height // pitch)), max(1, -(-width // pitch))
    centres = _centres(shape, (pitch, pitch))
    grid = strewn.at(centres)
    within = centres - torch.tensor([known.top, known.left])
    inside = ((within >= 0) & (within < torch.tensor(kept.shape))).all(1)
    inside[inside.clone()] = kept[tuple(within[inside].long().T)]
    grid[inside] = own.at(within[inside])
    return EmbeddingField(grid.unflatten(0, shape), (pitch, pitch), (height, width))


def _strewn(
    pool: Tensor, height: int, width: int, patch: int, generator: torch.Generator | None
) -> EmbeddingField:
    """Embeddings of a pool (N, D) at random, two patches apart."""
    pitch = 2 * patch
    rows, columns = max(1, -(-height // pitch)), max(1, -(-width // pitch))
    chosen = torch.randint(len(pool), (rows, columns), generator=generator)
    return EmbeddingField(pool[chosen], (height / rows, width / columns), (height, width))


def _centres(shape: tuple[int, int], pitch: tuple[float, float]) -> Tensor:
    """Pixels (rows * columns, 2), (y, x), that the entries of a field of that shape are of."""
    y, x = (torch.arange(count) + 0.5 for count in shape)
    return torch.cartesian_prod(y * pitch[0], x * pitch[1])


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
