"""How unlike two pictures are, at each pixel.

Pictures are (N, 1, S, S) in [-1, 1], maps (N, 1, S, S) of at least 0.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from gen.anomaly.healthy_prior import HealthyPrior
from gen.types import Process

# Shares of the side. Finer than the first is what no reconstruction gets right, coarser than the
# second how a picture is exposed; lesions lie between. The third is how far around a pixel counts.
FINE, COARSE, AROUND = 1 / 64, 1 / 16, 1 / 26
FEATURE_POWER = 0.1  # of the product; more weight blurs the map


def absolute_residual(picture: Tensor, healthy: Tensor) -> Tensor:
    """|x - x_healthy|, as published."""
    return (picture - healthy).abs()


def band_residual(
    picture: Tensor,
    healthy: Tensor,
    fine: float = FINE,
    coarse: float = COARSE,
    around: float = AROUND,
) -> Tensor:
    """Root mean square around each pixel of what differs at the scale of lesions.

    sqrt(G_a * ((G_f - G_c) * (x - x_healthy))^2), with Gaussians of `fine`, `coarse` and `around`,
    in shares of the side.
    """
    side = picture.shape[-1]
    difference = (picture - healthy).float()
    band = gaussian(difference, fine * side) - gaussian(difference, coarse * side)
    return gaussian(band.square(), around * side).clamp_min(0).sqrt()


def departure_map(prior: HealthyPrior, picture: Tensor, healthy: Tensor) -> Process[Tensor]:
    """The band residual, and a little of what the encoder sees."""
    features = yield from prior.feature_distance(picture, healthy)
    around = gaussian(features, AROUND * picture.shape[-1] / 2).clamp_min(1e-9)
    return band_residual(picture, healthy) * around**FEATURE_POWER


def gaussian(pictures: Tensor, sigma: float) -> Tensor:
    """Smooth (N, 1, H, W) by a Gaussian of `sigma` pixels; edges are mirrored."""
    reach = min(math.ceil(3 * sigma), min(pictures.shape[-2:]) - 1)
    places = torch.arange(-reach, reach + 1, device=pictures.device, dtype=torch.float32)
    weights = torch.exp(-(places**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    padded = F.pad(pictures.float(), (reach,) * 4, mode="reflect")
    rows = F.conv2d(padded, weights.view(1, 1, 1, -1))
    return F.conv2d(rows, weights.view(1, 1, -1, 1))
