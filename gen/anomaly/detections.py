"""What a detector of anomalies answers, whatever its method, and the residual as a map."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from gen.anomaly.residuals import absolute_residual, gaussian

RESIDUAL_SIGMA = 2.0  # pixels: as wide as the edges that a reconstruction misses by


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


def residual_map(images: Tensor, healthy: Tensor, sigma: float = RESIDUAL_SIGMA) -> Tensor:
    """|image - healthy| under a Gaussian of `sigma` pixels, (N, S, S), of (N, 1, S, S)."""
    return gaussian(absolute_residual(images, healthy), sigma)[:, 0].cpu()
