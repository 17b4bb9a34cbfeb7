"""Harmonise what is denoised with the picture on the way (Bercea et al. 2024, THOR, 2403.08464).

Noise to t = 350 and denoise; at t = 300, 150 and 50 the estimate of the clean picture is compared
with the picture, mixed with it where they agree, and noised again by the same noise. The map is the
harmonic mean of the three, so that what one level alone misses does not count.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gen.anomaly.healthy_prior import Departure, HealthyPrior
from gen.anomaly.partial_noise import first_step
from gen.anomaly.residuals import absolute_residual, gaussian
from gen.ddim import StochasticDDIMScheduler
from gen.types import Process

FROM = 0.35
HARMONISE = (0.3, 0.15, 0.05)
SMOOTHING = 2.0  # pixels at 128 a side
CLOSING = 13  # pixels at 128 a side


def thor(
    prior: HealthyPrior, picture: Tensor, num_inference_steps: int | None = None
) -> Process[Departure]:
    """The published algorithm on latents, with 351 and 3 network calls.

    Args:
        prior: see there.
        picture: (1, 1, S, S) in [-1, 1].
        num_inference_steps: of the whole schedule; None is each that it has, as published.
    """
    noising = prior.noising
    sampler = StochasticDDIMScheduler.from_config(prior.scheduler.config)
    steps = prior.steps(num_inference_steps or len(noising), sampler)
    latents = yield from prior.encode(picture)
    seen = yield from prior.decode(latents)
    noise = prior.noise(latents)
    first = first_step(steps, FROM)
    noisy = noising.add(latents, noise, steps.timesteps[first].float())
    due = [first_step(steps, level) for level in HARMONISE]
    maps, healthy = [], seen
    for index, timestep in enumerate(steps.timesteps[first:].tolist(), first):
        output = yield from prior.predict(noisy, torch.tensor(float(timestep)))
        clean = noising.clean(noisy, output, torch.tensor(float(timestep)))
        if index in due:
            healthy = yield from prior.decode(clean)
            features = yield from prior.feature_distance(seen, healthy)
            maps.append(anomaly(absolute_residual(seen, healthy) * features))
            share = F.adaptive_avg_pool2d(maps[-1], latents.shape[-1])
            mixed = share * clean + (1 - share) * latents
            # the same noise again, which keeps what was agreed on
            noisy = noising.add(mixed, noise, torch.tensor(float(timestep)))
            output = yield from prior.predict(noisy, torch.tensor(float(timestep)))
        noisy = steps.step(output, timestep, noisy, generator=[prior.generator]).prev_sample
    healthy = yield from prior.decode(noisy)
    return Departure(harmonic_mean(maps), (picture + healthy - seen).clamp(-1, 1))


def anomaly(residual: Tensor) -> Tensor:
    """The map of one level, in [0, 1]: the smoothed residual, and its grey closing."""
    scale = residual.shape[-1] / 128
    raw = gaussian(residual, SMOOTHING * scale)
    raw = raw / raw.amax((2, 3), keepdim=True).clamp_min(1e-6)
    size = 2 * round(CLOSING * scale / 2) + 1
    dilated = F.max_pool2d(raw, size, 1, size // 2)
    closed = -F.max_pool2d(-dilated, size, 1, size // 2)
    return (raw + closed) / 2


def harmonic_mean(maps: list[Tensor]) -> Tensor:
    """Of maps of one shape, at least 0."""
    return len(maps) / sum((1 / each.clamp_min(1e-6) for each in maps), torch.zeros(()))
