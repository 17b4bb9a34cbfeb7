"""Vary a picture: noise it to a share of the schedule, then denoise it under its own words.

SDEdit (Meng et al. 2022, arXiv 2108.01073, algorithm 1 with a solver of any kind). What is coarser
than the noise stays: layout first, then the patient, then the kind of picture.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gen.anomaly.partial_noise import first_step, partial_noise
from gen.augmentation.operations import check_strength
from gen.denoising import denoise, draw_noise
from gen.errors import InvalidInput
from gen.types import Predict, Process, Scheduler


def sdedit(
    latents: Tensor,
    scheduler: Scheduler,
    predict: Predict,
    generator: Sequence[torch.Generator],
    strength: float,
) -> Process[Tensor]:
    """Latents (N, C, h, w) like those given, and the less so the greater the strength.

    Args:
        latents: of the pictures, (N, C, h, w), unit variance.
        scheduler: a fresh one with its timesteps set, which this process alone uses.
        predict: the network under the pictures' own words, guided or not.
        generator: one for each image, of the noise and of schedulers that add more.
        strength: above 0, at most 1: the share of the schedule that is gone through. 1 begins from
            noise alone, as text to image does.

    Raises:
        InvalidInput: the strength is out of range or below all timesteps.
    """
    steps_left_out(scheduler, strength)
    if strength == 1:
        noise = draw_noise(latents.shape[1:], generator).to(latents)
        start = noise * scheduler.init_noise_sigma
        return (yield from denoise(start, scheduler, predict, generator))
    return (yield from partial_noise(latents, scheduler, predict, generator, strength))


def steps_left_out(scheduler: Scheduler, strength: float) -> int:
    """How many of a scheduler's steps are noisier than a strength.

    Raises:
        InvalidInput: the strength is out of range or below all timesteps.
    """
    check_strength(strength)
    if strength == 1:
        return 0
    lowest = float(scheduler.timesteps[-1]) / scheduler.config.num_train_timesteps
    if strength < lowest:
        raise InvalidInput(
            f"strength is {strength}, but the last of {len(scheduler.timesteps)} steps begins at"
            f" {lowest:.3g}; raise it, or num_inference_steps"
        )
    return first_step(scheduler, strength)
