"""Features of pictures in memory, and pictures of files."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.data.images import read_image
from gen.data.transforms import fit
from gen.errors import InvalidInput, MedphantomError


@torch.no_grad()
def features_of(
    images: Tensor,
    encoder: Callable[[Tensor], Tensor],
    batch_size: int = 32,
    report: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """Features (N, D) of uint8 images (N, 1, S, S).

    `encoder` takes images (N, 1, S, S) in [-1, 1]. Images of another size than its own are resized
    a second time; `gen.metrics.feature_cache.encode_collection` resizes files once.
    """
    parts = []
    for batch in images.split(batch_size):
        parts.append(encoder(batch.float() / 127.5 - 1).double().numpy())
        report(len(batch))
    return np.concatenate(parts)


def read_pictures(
    paths: Sequence[Path], size: int, report: Callable[[int], None] = lambda _: None
) -> tuple[Tensor, list[str]]:
    """Pictures (N, 1, size, size) uint8, and a line for each that could not be read."""
    images: list[NDArray[np.uint8]] = []
    errors: list[str] = []
    for path in paths:
        try:
            pixels = fit(read_image(path).pixels, size)
            images.append(np.round(pixels * 255).astype(np.uint8))
        except MedphantomError as error:
            errors.append(str(error))
        report(1)
    if not images:
        raise InvalidInput(f"none of {len(paths)} pictures could be read; the first: {errors[0]}")
    return torch.from_numpy(np.stack(images))[:, None], errors
