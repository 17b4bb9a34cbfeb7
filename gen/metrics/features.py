"""Features of pictures in memory."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


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
