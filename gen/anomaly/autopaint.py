"""Find what is suspicious, paint it healthy, look again, and compare: AutoPaint's loop.

After Tian et al. 2023 (arXiv 2305.12358), where a network that inpaints healthy anatomy replaces
regions that the method finds by itself. Here a diffusion model finds them, by what it expects of
the picture in a single step, and paints them, so that they go on the anatomy around.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gen.anomaly.healthy_prior import Departure, HealthyPrior
from gen.anomaly.residuals import departure_map
from gen.anomaly.single_step import expectation
from gen.inpainting import blended_latents, to_cells
from gen.types import Process

NUM_ROUNDS = 3
NUM_STEPS, FROM = 15, 0.6  # of the whole schedule, and the share where painting begins
QUANTILE = 0.98  # of a picture's own map, where no threshold is known
# What was painted, to this power, weights the first suspicion, so that what could be painted alike
# counts less. More weight loses lesions that were painted again.
CHANGED_POWER = 0.2
TRACE = 1e-3  # of what was painted, where nothing was


def autopaint(
    prior: HealthyPrior,
    picture: Tensor,
    suspicious: float | None = None,
    num_rounds: int = NUM_ROUNDS,
    body: Tensor | None = None,
) -> Process[Departure]:
    """Rounds of suspicion and painting, until nothing more is suspicious.

    Args:
        prior: see there.
        picture: (1, 1, S, S) in [-1, 1].
        suspicious: what a pixel's suspicion must exceed to be painted, from healthy pictures; None
            is `QUANTILE` of the picture's own, in the body.
        num_rounds: at most.
        body: (1, 1, S, S), True where anything may be painted; None is everywhere.
    """
    inside = torch.ones_like(picture, dtype=torch.bool) if body is None else body
    latents = yield from prior.encode(picture)
    seen = yield from prior.decode(latents)
    factor = picture.shape[-1] // latents.shape[-1]
    painted, healthy = latents, seen
    mask = torch.zeros_like(latents[:, :1])
    first: Tensor | None = None
    for _ in range(num_rounds):
        found = yield from suspicion(prior, painted, healthy)
        first = found if first is None else first
        limit = limit_of(first, inside) if suspicious is None else suspicious
        grown = torch.maximum(mask, to_cells((found > limit) & inside, factor))
        if bool((grown == mask).all()):
            break
        mask = grown
        steps = prior.steps(NUM_STEPS)
        skip = int((steps.timesteps > FROM * len(prior.noising)).sum())
        painted = yield from blended_latents(
            latents, mask, steps, prior.painting(latents, mask), [prior.generator], skip
        )
        healthy = yield from prior.decode(painted)
    assert first is not None
    changed = yield from departure_map(prior, seen, healthy)
    weighed = first * (changed + TRACE) ** CHANGED_POWER
    return Departure(weighed, repaired(picture, seen, healthy, mask))


def limit_of(found: Tensor, inside: Tensor) -> float:
    """What few pixels of a suspicion exceed, of those that are `inside`; 0 if none is."""
    seen = found[inside]
    return float(seen.quantile(QUANTILE)) if len(seen) else 0.0


def first_look(prior: HealthyPrior, picture: Tensor) -> Process[Tensor]:
    """The suspicion (1, 1, S, S) that `autopaint` begins with, of a picture (1, 1, S, S)."""
    latents = yield from prior.encode(picture)
    seen = yield from prior.decode(latents)
    return (yield from suspicion(prior, latents, seen))


def suspicion(prior: HealthyPrior, latents: Tensor, seen: Tensor) -> Process[Tensor]:
    """How far latents (1, C, h, w), decoded as `seen`, are from what a single step expects."""
    expected = yield from prior.decode((yield from expectation(prior, latents)))
    return (yield from departure_map(prior, seen, expected))


def repaired(picture: Tensor, seen: Tensor, healthy: Tensor, mask: Tensor) -> Tensor:
    """The picture with the difference of two decoded ones, under a mask (1, 1, h, w) of cells.

    What the decoder cannot draw stays as it was, and the edge of the mask is not seen.
    """
    share = F.interpolate(mask.float(), picture.shape[-2:], mode="bilinear")
    return (picture + share * (healthy - seen)).clamp(-1, 1)
