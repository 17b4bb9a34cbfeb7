"""Boost the noise that sampling starts from, and skip the first steps, which would undo it.

Um & Ye 2025 (Boost-and-Skip, arXiv 2502.06516): noise of more than unit variance lies where the
images do that are seldom drawn, and the steps near pure noise are those that lead back to the
common ones. No network call is added, and some are saved.
"""

import copy
from typing import Any

import torch
from torch import Tensor

from gen.errors import InvalidInput


def boost(noise: Tensor, scheduler: Any, factor: float, skip: int) -> Tensor:
    """Latents (N, C, h, w) to start from at step `skip`, as `gen.denoising.denoise` takes them.

    Args:
        noise: (N, C, h, w) of unit variance.
        scheduler: a fresh one.
        factor: gamma of the paper, above 1; below 1, what is common is sought.
        skip: Delta t of the paper: steps left out, fewer than there are.

    Raises:
        InvalidInput: an argument is out of range.
    """
    if not factor > 0:
        raise InvalidInput(f"factor is {factor}, but must be above 0; try 1.2")
    if not 0 <= skip < len(scheduler.timesteps):
        raise InvalidInput(
            f"skip is {skip}, but must be from 0 to {len(scheduler.timesteps) - 1}; try 1"
        )
    # schedulers whose latents grow with the noise say by what they divide them for the network
    one = torch.ones((), device=noise.device)
    shrunk = copy.deepcopy(scheduler).scale_model_input(one, scheduler.timesteps[skip])
    return noise * (factor / shrunk).to(noise.dtype)
