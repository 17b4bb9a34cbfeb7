"""Reconstruct in a single step: what a denoiser, shown a picture with some noise, takes it for.

This is how pDDPM (Behrendt et al. 2023, arXiv 2303.03758) and cDDPM (arXiv 2312.04215) are run: a
denoising network's answer rather than a sample, averaged over levels and draws of noise.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gen.anomaly.healthy_prior import Departure, HealthyPrior
from gen.anomaly.residuals import departure_map
from gen.types import Predict, Process

LEVELS = (0.15, 0.2)  # of the schedule: more forgets the patient, less knows the lesion
NUM_DRAWS = 8  # a level


def single_step(
    prior: HealthyPrior,
    picture: Tensor,
    levels: Sequence[float] = LEVELS,
    num_draws: int = NUM_DRAWS,
) -> Process[Departure]:
    """One network call a level and draw."""
    latents = yield from prior.encode(picture)
    expected = yield from expectation(prior, latents, levels, num_draws)
    seen, healthy = (yield from prior.decode(torch.cat([latents, expected]))).chunk(2)
    found = yield from departure_map(prior, seen, healthy)
    return Departure(found, (picture + healthy - seen).clamp(-1, 1))


def expectation(
    prior: HealthyPrior,
    latents: Tensor,
    levels: Sequence[float] = LEVELS,
    num_draws: int = NUM_DRAWS,
    predict: Predict | None = None,
) -> Process[Tensor]:
    """Mean of Tweedie's estimates of latents (1, C, h, w) that are noised to each of `levels`.

    `predict` is the network; None is the prior's.
    """
    noising, draws = prior.noising, latents.expand(num_draws, -1, -1, -1)
    total = torch.zeros_like(latents)
    for level in levels:
        timestep = torch.tensor(float(round(level * len(noising))), device=latents.device)
        noisy = noising.add(draws, prior.noise(draws), timestep)
        output = yield from (predict or prior.predict)(noisy, timestep)
        total = total + noising.clean(noisy, output, timestep).mean(0, keepdim=True)
    return total / len(levels)
