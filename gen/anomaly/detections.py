"""What a detector of anomalies answers, whatever its method, and the residual as a map."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from gen.anomaly.body import body_mask
from gen.anomaly.regions import cleaned
from gen.anomaly.residuals import band_residual


@dataclass(frozen=True)
class Detections:
    """Answers for N images.

    Args:
        maps: (N, S, S) float of at least 0; larger is less healthy.
        healthy: (N, 1, S, S) in [-1, 1], the images as they would be without disease.
        num_network_calls: images that went through a network, for all N together.
    """

    maps: Tensor
    healthy: Tensor
    num_network_calls: int


Detector: TypeAlias = Callable[[Tensor, Sequence[int]], Detections]
"""(images (N, 1, S, S) in [-1, 1], a seed of each) -> what is found."""


def residual_map(images: Tensor, healthy: Tensor) -> Tensor:
    """Maps (N, S, S) of images (N, 1, S, S), as our own methods make and clean them.

    Under |image - healthy|, as published, rivals find less: edges that they miss outshine lesions.
    """
    found = band_residual(images, healthy)[:, 0].cpu().numpy()
    pictures = images[:, 0].float().cpu().numpy()
    return torch.from_numpy(
        np.stack([cleaned(*each) for each in zip(found, map(body_mask, pictures), strict=True)])
    )
