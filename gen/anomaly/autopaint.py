"""Find what is suspicious, paint it healthy, look again, and compare: AutoPaint's loop.

After Tian et al. 2023 (arXiv 2305.12358), where a network that inpaints healthy anatomy replaces
regions that the method finds by itself. Here a diffusion model finds them, by what it expects of
the picture in a single step, and walks them to what it expects, beside anatomy that stays.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gen.anomaly.healthy_prior import Departure, HealthyPrior
from gen.anomaly.residuals import departure_map, gaussian
from gen.anomaly.single_step import expectation
from gen.inpainting import blended_latents, to_cells
from gen.types import Process

NUM_ROUNDS = 2
NUM_STEPS = 2  # of painting, a round
FIRST_DRAWS = 16  # of noise a level, for the look that the map is made of
NUM_DRAWS = 4  # for what follows it
# What was painted is a mean, and smooth. It is drawn once more from this share of the schedule on,
# of so many steps: from further, more is drawn at random that was not there.
DRAWN_FROM, DRAWING_STEPS = 0.2, 25
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
    """Rounds of suspicion and painting, until nothing is suspicious.

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
    first = yield from suspicion(prior, latents, seen, FIRST_DRAWS)
    limit = limit_of(first, inside) if suspicious is None else suspicious
    found, painted, healthy = first, latents, seen
    mask = torch.zeros_like(latents[:, :1])
    for number in range(num_rounds):
        if number:
            found = yield from suspicion(prior, painted, healthy, NUM_DRAWS)
        left = (found > limit) & inside
        if not left.any():
            break
        mask = torch.maximum(mask, to_cells(left, factor))
        painted = yield from paint(prior, painted, mask)
        healthy = yield from prior.decode(painted)
    changed = yield from departure_map(prior, seen, healthy)
    weighed = first * (changed + TRACE) ** CHANGED_POWER
    if mask.any():
        healthy = yield from prior.decode((yield from draw(prior, painted, mask)))
    share = torch.minimum(F.interpolate(mask, picture.shape[-2:], mode="bilinear"), near(inside))
    return Departure(weighed, repaired(picture, healthy, share), share)


def paint(
    prior: HealthyPrior, latents: Tensor, mask: Tensor, num_steps: int = NUM_STEPS
) -> Process[Tensor]:
    """Walk latents (1, C, h, w) under a mask (1, 1, h, w) to what is expected of them.

    Each step takes them to the mean of what they may have been. It undoes more of a lesion than one
    sample in their place, which draws at random what was not there.
    """
    masks = mask.expand(NUM_DRAWS, -1, -1, -1)
    for _ in range(num_steps):
        painting = prior.painting(latents.expand(NUM_DRAWS, -1, -1, -1), masks)
        expected = yield from expectation(prior, latents, num_draws=NUM_DRAWS, predict=painting)
        latents = torch.where(mask.bool(), expected, latents)
    return latents


def draw(prior: HealthyPrior, latents: Tensor, mask: Tensor) -> Process[Tensor]:
    """Latents (1, C, h, w) with the detail that the mean under a mask (1, 1, h, w) has not."""
    steps = prior.steps(DRAWING_STEPS)
    skip = int((steps.timesteps > DRAWN_FROM * len(prior.noising)).sum())
    painting = prior.painting(latents, mask)
    return (yield from blended_latents(latents, mask, steps, painting, [prior.generator], skip))


def limit_of(found: Tensor, inside: Tensor) -> float:
    """What few pixels of a suspicion exceed, of those that are `inside`; 0 if none is."""
    seen = found[inside]
    return float(seen.quantile(QUANTILE)) if len(seen) else 0.0


def first_look(prior: HealthyPrior, picture: Tensor) -> Process[Tensor]:
    """The suspicion (1, 1, S, S) that `autopaint` begins with, of a picture (1, 1, S, S)."""
    latents = yield from prior.encode(picture)
    seen = yield from prior.decode(latents)
    return (yield from suspicion(prior, latents, seen, FIRST_DRAWS))


def suspicion(
    prior: HealthyPrior, latents: Tensor, seen: Tensor, num_draws: int
) -> Process[Tensor]:
    """How far latents (1, C, h, w), decoded as `seen`, are from what a single step expects."""
    expected = yield from expectation(prior, latents, num_draws=num_draws)
    return (yield from departure_map(prior, seen, (yield from prior.decode(expected))))


def near(inside: Tensor) -> Tensor:
    """The share (1, 1, S, S) of pixels that are inside or as far as half a cell from it, about."""
    reach = max(1, inside.shape[-1] // 32)
    grown = F.max_pool2d(inside.float(), 2 * reach + 1, 1, reach)
    return gaussian(grown, reach / 4)


def repaired(picture: Tensor, healthy: Tensor, share: Tensor) -> Tensor:
    """The picture with a share (1, 1, S, S) of the healthy one: no detail of what was there."""
    return ((1 - share) * picture + share * healthy).clamp(-1, 1)
