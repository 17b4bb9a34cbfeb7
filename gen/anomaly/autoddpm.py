"""Mask, stitch, resample (Bercea et al. 2023, AutoDDPM, arXiv 2305.19643).

1. A partial reconstruction from t = 200 tells where the picture is unlikely.
2. What is unlikely is masked, and stitched into the picture as it was reconstructed.
3. Resampling from t = 50 lets the stitches grow into the anatomy around.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gen.anomaly.healthy_prior import Departure, HealthyPrior
from gen.anomaly.partial_noise import partial_noise
from gen.anomaly.residuals import absolute_residual, gaussian
from gen.ddim import StochasticDDIMScheduler
from gen.inpainting import repaint, to_cells
from gen.types import Process

RECONSTRUCT_FROM, RESAMPLE_FROM = 0.2, 0.05
NUM_RESAMPLES = 5
QUANTILE = 0.95


def autoddpm(
    prior: HealthyPrior,
    picture: Tensor,
    threshold: float | None = None,
    num_inference_steps: int | None = None,
) -> Process[Departure]:
    """The published algorithm on latents, with 201 and 5 times 50 + 1 network calls.

    Args:
        prior: see there.
        picture: (1, 1, S, S) in [-1, 1].
        threshold: of the likelihood map, from healthy pictures; None is `QUANTILE` of its own.
        num_inference_steps: of the whole schedule; None is each that it has, as published.
    """
    num_steps = num_inference_steps or len(prior.noising)
    sampler = StochasticDDIMScheduler.from_config(prior.scheduler.config)
    latents = yield from prior.encode(picture)
    rough = yield from partial_noise(
        latents,
        prior.steps(num_steps, sampler),
        prior.predict,
        [prior.generator],
        RECONSTRUCT_FROM,
    )
    seen, reconstructed = (yield from prior.decode(torch.cat([latents, rough]))).chunk(2)
    features = yield from prior.feature_distance(seen, reconstructed)
    likelihood = unlikelihood(seen, reconstructed) * features
    limit = likelihood.quantile(QUANTILE) if threshold is None else threshold
    mask = F.max_pool2d((likelihood > limit).float(), 3, 1, 1)
    cells = to_cells(mask, picture.shape[-1] // latents.shape[-1])
    steps = prior.steps(num_steps, sampler)
    stitched = yield from repaint(
        latents,
        cells,
        steps,
        prior.painting(latents, cells),
        [prior.generator],
        skip=int((steps.timesteps > RESAMPLE_FROM * len(prior.noising)).sum()),
        num_resamples=NUM_RESAMPLES,
        start=rough,
    )
    healthy = yield from prior.decode(stitched)
    features = yield from prior.feature_distance(seen, healthy)
    final = unlikelihood(seen, healthy) * features * likelihood
    return Departure(gaussian(final, 2), (picture + healthy - seen).clamp(-1, 1))


def unlikelihood(picture: Tensor, reconstructed: Tensor) -> Tensor:
    """The residual over its 95th percentile, at most 1."""
    residual = absolute_residual(picture, reconstructed)
    return (residual / residual.quantile(QUANTILE).clamp_min(1e-6)).clamp(max=1)
