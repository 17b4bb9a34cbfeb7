"""Noise a picture to a part of the schedule and denoise it: what is healthy comes back.

AnoDDPM (Wyatt et al. 2022, algorithm 1) with Gaussian noise, on latents of any kind and with any
scheduler. A model of healthy pictures, or one under the prompt of a healthy one, does not know how
to draw the disease again.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gen.denoising import begin, denoise, draw_noise
from gen.errors import InvalidInput
from gen.types import Predict, Process, Scheduler

NOISE_LEVEL = 0.25  # of the schedule: t = 250 of 1000


def partial_noise(
    latents: Tensor,
    scheduler: Scheduler,
    predict: Predict,
    generator: Sequence[torch.Generator],
    noise_level: float = NOISE_LEVEL,
) -> Process[Tensor]:
    """Clean latents (N, C, h, w) as the model would have them.

    Args:
        latents: of the pictures, (N, C, h, w), unit variance.
        scheduler: a fresh one with its timesteps set, which this process alone uses.
        predict: the network, guided or not.
        generator: one for each image, of the noise and of schedulers that add more.
        noise_level: above 0, at most 1; the highest timestep of the scheduler up to there is begun
            from.

    Raises:
        InvalidInput: the level is out of range or below all timesteps.
    """
    first = first_step(scheduler, noise_level)
    begin(scheduler, first)
    timesteps = scheduler.timesteps[first : first + 1].expand(len(latents))
    noise = draw_noise(latents.shape[1:], generator).to(latents)
    noisy = scheduler.add_noise(latents, noise, timesteps)
    return (yield from denoise(noisy, scheduler, predict, generator, skip=first))


def first_step(scheduler: Scheduler, noise_level: float) -> int:
    """The number of the first of the scheduler's steps within a share of its schedule."""
    highest = noise_level * scheduler.config.num_train_timesteps
    within = (scheduler.timesteps <= highest).nonzero()
    if not 0 < noise_level <= 1 or not len(within):
        raise InvalidInput(
            f"noise_level is {noise_level}, but must be above 0, at most 1 and reach the lowest of"
            f" {len(scheduler.timesteps)} timesteps, {float(scheduler.timesteps[-1]):.0f}; raise"
            " it, or num_inference_steps"
        )
    return int(within[0])
