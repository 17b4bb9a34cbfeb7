"""Guidance away from what the model itself finds easy, with no network but its own.

Um & Ye 2024 (Self-Guided Generation of Minority Samples, arXiv 2407.11555): the estimate of the
clean image is noised once more and estimated again; what is lost on the way is the minority score
of the sample as it forms, and sampling climbs its gradient.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gen.denoising import draw_noise
from gen.guidance.minority_score import Distance
from gen.noising import Noising
from gen.types import Predict, Process

NOISE_LEVEL = 0.8  # of the schedule, to which estimates are noised again
EVERY = 2
# Shares of the schedule between which the gradient acts. Published is all of it. What is pushed
# near pure noise is forgotten, and near the end it is noise itself: four gradients in between move
# cxr-mini further than thirteen over the whole way.
BETWEEN = (0.1, 0.65)


def self_guided(
    predict: Predict,
    probe: Predict,
    noising: Noising,
    generator: Sequence[torch.Generator],
    distance: Distance,
    scale: float,
    every: int = EVERY,
    noise_level: float = NOISE_LEVEL,
    between: tuple[float, float] = BETWEEN,
) -> Predict:
    """Predictions of noise less sqrt(1 - abar_t) scale g, g the gradient over its largest entry.

    Args:
        predict: the network, guided or not.
        probe: the network under its condition alone, recorded if the latents are.
        noising: of the model's scheduler.
        generator: one for each image, for the second noise.
        distance: of the two estimates.
        scale: 0 is plain sampling.
        every: the gradient acts at every so many steps of those in `between`.
        noise_level: see `NOISE_LEVEL`.
        between: see `BETWEEN`; (0, 1) is as published.
    """
    step = 0
    lowest, highest = (share * len(noising) for share in between)
    again = torch.tensor(float(round(noise_level * len(noising))))

    def guided(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        nonlocal step
        output = yield from predict(latents, timestep)
        if scale == 0 or not lowest <= float(timestep) <= highest:
            return output
        step += 1
        if (step - 1) % every:
            return output
        noise = draw_noise(latents.shape[1:], generator).to(latents)
        gradient = yield from lost_gradient(
            latents, timestep, again.to(latents.device), noise, probe, noising, distance
        )
        largest = gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
        _, sigma = noising.roots(timestep, latents)
        shift = -scale * sigma * (gradient / largest).to(output)
        return noising.shift_noise(output, shift, timestep)

    return guided


def lost_gradient(
    latents: Tensor,
    timestep: Tensor,
    again: Tensor,
    noise: Tensor,
    probe: Predict,
    noising: Noising,
    distance: Distance,
) -> Process[Tensor]:
    """Gradient in x_t (N, C, h, w) of what its estimate loses when noised to `again`.

    The second estimate is held fixed, as released: it is the place the first moves away from.
    """
    leaf = latents.detach().requires_grad_()
    estimate = noising.clean(leaf, (yield from probe(leaf, timestep)), timestep)
    noisy = noising.add(estimate.detach(), noise, again)
    second = noising.clean(noisy, (yield from probe(noisy, again)), again).detach()
    lost = yield from distance(estimate, second)
    (gradient,) = torch.autograd.grad(lost.sum(), leaf)
    return gradient
