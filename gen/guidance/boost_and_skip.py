"""Boost the noise that sampling starts from, and skip the first steps, which would undo it.

Um & Ye 2025 (Boost-and-Skip, arXiv 2502.06516): noise of more than unit variance lies where the
images do that are seldom drawn, and the steps near pure noise are those that lead back to the
common ones. No network call is added, and some are saved.

Published is a boost of all noise, with samplers of hundreds of steps that add noise at each. In few
steps without noise, what is boosted of the short waves stays in the image as noise. The long waves
are what the first steps decide on, so here they alone are boosted.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor

from gen.errors import InvalidInput


def boost(noise: Tensor, factor: float, width: float | None = None) -> Tensor:
    """Noise (N, C, h, w) of unit variance times gamma, or the long waves of it.

    Args:
        noise: of unit variance.
        factor: gamma of the paper, above 1; below 1, what is common is sought.
        width: waves of this many half-waves a side are boosted by 0.6 of what a constant is, much
            shorter ones not at all (a Gaussian); None boosts all alike, as published.

    Raises:
        InvalidInput: the factor is not positive.
    """
    if not factor > 0:
        raise InvalidInput(f"factor is {factor}, but must be above 0; try 1.2")
    if width is None:
        return noise * factor
    rows, columns = (cosines(side).to(noise) for side in noise.shape[-2:])
    squares = [torch.arange(side, device=noise.device) ** 2 for side in noise.shape[-2:]]
    near = torch.exp(-(squares[0][:, None] + squares[1]) / (2 * width**2)).to(noise)
    waves = rows @ noise @ columns.T
    return rows.T @ (waves * (1 + (factor - 1) * near)) @ columns


def cosines(side: int) -> Tensor:
    """The orthonormal cosine transform (side, side): row k has k half-waves."""
    places = torch.arange(side, dtype=torch.float64)
    waves = torch.cos(math.pi / side * (places + 0.5) * places[:, None]) * math.sqrt(2 / side)
    waves[0] /= math.sqrt(2)
    return waves


def start_scale(scheduler: Any, skip: int) -> Tensor:
    """What noise of unit variance is multiplied by to start at step `skip` of a fresh scheduler.

    Raises:
        InvalidInput: there are not so many steps.
    """
    if not 0 <= skip < len(scheduler.timesteps):
        raise InvalidInput(
            f"skip is {skip}, but must be from 0 to {len(scheduler.timesteps) - 1}; try 1"
        )
    # schedulers whose latents grow with the noise say by what they divide them for the network
    shrunk = copy.deepcopy(scheduler).scale_model_input(torch.ones(()), scheduler.timesteps[skip])
    return 1 / torch.as_tensor(shrunk)
