"""Does a diffusion model betray whom it was trained on? Membership inference by its own loss.

An image that the model has seen too often is denoised better than one that it has never seen
(Carlini et al. 2023, Extracting Training Data from Diffusion Models, section 5.2). Train images
must come from the same source as held-out ones, or the loss tells the source and not membership.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.denoising import draw_noise
from gen.errors import InvalidInput
from gen.metrics.alignment import auroc
from gen.metrics.intervals import LEVELS, Estimate
from gen.noising import Noising
from gen.types import ConditionedPredict, Process

TIMESTEPS = (50, 100, 200, 400)  # of 1000; near 0 every image is easy, near the end every one hard

Losses = NDArray[np.floating]


def denoising_losses(
    latents: Tensor,
    condition: Tensor,
    predict: ConditionedPredict,
    scheduler: Any,
    generator: Sequence[torch.Generator],
    timesteps: Sequence[int] = TIMESTEPS,
    num_draws: int = 4,
) -> Process[Tensor]:
    """Mean squared error of the model's prediction, over fixed timesteps and draws of noise.

    Args:
        latents: clean ones (N, C, H, W), scaled as in training.
        condition: (N, L, D).
        predict: the network, without guidance.
        scheduler: a diffusers one, for its alpha_bar and prediction type.
        generator: one for each image, so that its loss does not depend on the others.
        timesteps: of the scheduler's training schedule.
        num_draws: of noise at each timestep.

    Returns:
        Losses (N,).

    Raises:
        InvalidInput: a timestep is not in the schedule, or nothing is drawn; the scheduler has no
            alpha_bar or another prediction type; or there is not a generator for each image.
    """
    noising = Noising(scheduler)
    _check(len(noising), timesteps, num_draws, len(latents), len(generator))
    losses = torch.zeros(len(latents), device=latents.device)
    for timestep in timesteps:
        time = torch.tensor(float(timestep), device=latents.device)
        for _ in range(num_draws):
            noise = draw_noise(latents.shape[1:], generator).to(latents)
            output = yield from predict(noising.add(latents, noise, time), time, condition)
            wanted = noising.target(latents, noise, time)
            losses += (output - wanted).float().square().flatten(1).mean(1)
    return losses / (len(timesteps) * num_draws)


def _check(
    length: int, timesteps: Sequence[int], num_draws: int, num_images: int, num_generators: int
) -> None:
    if num_draws < 1 or not timesteps or min(timesteps) < 0 or max(timesteps) >= length:
        raise InvalidInput(
            f"timesteps are {tuple(timesteps)} with num_draws {num_draws}, but there must be at"
            f" least one of each, timesteps from 0 to {length - 1}; try {TIMESTEPS}"
        )
    if num_generators != num_images:
        raise InvalidInput(
            f"generator has {num_generators} entries for {num_images} images; give one for each"
        )


@dataclass(frozen=True)
class Membership:
    """How well a loss tells train from held-out images: 0.5 `auroc` is not at all.

    `true_positive_rate` is the share of train images named where at most `false_positive_rate` of
    held-out ones are: some patients may be betrayed for certain though the AUROC is near 0.5.
    """

    auroc: Estimate
    true_positive_rate: Estimate
    false_positive_rate: float


def membership(
    train: Losses,
    held_out: Losses,
    false_positive_rate: float = 0.01,
    num_resamples: int = 200,
    seed: int = 0,
) -> Membership:
    """Infer membership from losses (N,) and (M,), the lower the likelier; resampled by image.

    Raises:
        InvalidInput: there are none of either, or the rate is no probability.
    """
    if not 0 <= false_positive_rate < 1 or not len(train) or not len(held_out):
        raise InvalidInput(
            f"false_positive_rate is {false_positive_rate} for {len(train)} train and"
            f" {len(held_out)} held-out losses, but must be from 0 and below 1, with images of"
            " both kinds; try 0.01"
        )
    rng = np.random.default_rng(seed)
    draws = [
        _share_named(
            rng.choice(train, len(train)), rng.choice(held_out, len(held_out)), false_positive_rate
        )
        for _ in range(num_resamples)
    ]
    low, high = np.quantile(draws, LEVELS)
    named = Estimate(_share_named(train, held_out, false_positive_rate), float(low), float(high))
    labels = np.repeat([True, False], [len(train), len(held_out)])
    area = auroc(-np.concatenate([train, held_out]), labels, num_resamples, seed)
    return Membership(area, named, false_positive_rate)


def _share_named(train: Losses, held_out: Losses, false_positive_rate: float) -> float:
    allowed = int(false_positive_rate * len(held_out))
    return float(np.mean(train < np.sort(held_out)[allowed]))
