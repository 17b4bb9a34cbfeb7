"""Paint every patch from what lies around it, and compare.

As in pDDPM (Behrendt et al. 2023, arXiv 2303.03758, section 2.2), where the rest of the picture is
the context of each patch; here patches overlap by half, and all are rows of one batch.
"""

import torch
from torch import Tensor

from gen.anomaly.healthy_prior import Departure, HealthyPrior
from gen.anomaly.residuals import departure_map
from gen.inpainting import blended_latents
from gen.types import Process

PATCH = 4  # cells a side
NUM_STEPS, FROM = 15, 0.6  # of the whole schedule, and the share where painting begins


def patchwise(prior: HealthyPrior, picture: Tensor, patch: int = PATCH) -> Process[Departure]:
    """Each cell is what the patches over it have painted, on average."""
    latents = yield from prior.encode(picture)
    masks = patches(latents.shape[-2], latents.shape[-1], patch).to(latents)
    known = latents.expand(len(masks), -1, -1, -1)
    steps = prior.steps(NUM_STEPS)
    skip = int((steps.timesteps > FROM * len(prior.noising)).sum())
    generators = [prior.generator] * len(masks)
    paint = prior.painting(known, masks)
    painted = yield from blended_latents(known, masks, steps, paint, generators, skip)
    mean = (painted * masks).sum(0, keepdim=True) / masks.sum(0, keepdim=True)
    seen, healthy = (yield from prior.decode(torch.cat([latents, mean]))).chunk(2)
    found = yield from departure_map(prior, seen, healthy)
    return Departure(found, (picture + healthy - seen).clamp(-1, 1))


def patches(height: int, width: int, side: int) -> Tensor:
    """Masks (K, 1, height, width) of squares that overlap by half and cover every cell."""
    masks = []
    for top in starts(height, side):
        for left in starts(width, side):
            mask = torch.zeros(1, height, width)
            mask[:, top : top + side, left : left + side] = 1
            masks.append(mask)
    return torch.stack(masks)


def starts(length: int, side: int) -> list[int]:
    """Where squares of a side begin, half a side apart, the last one at the end."""
    last = max(0, length - side)
    return [*range(0, last, max(1, side // 2)), last]
