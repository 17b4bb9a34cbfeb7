"""Precision, recall, density and coverage of generated against real features.

Precision and recall: Kynkäänniemi et al. 2019, equations 1 and 2. Density and coverage: Naeem et
al. 2020, equations 4 and 5. The supports are unions of closed balls around each point that reach
to its k-th nearest neighbour.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gen.errors import InvalidInput
from gen.metrics.intervals import Features

CHUNK = 1024  # rows of a distance matrix held at once: 1024 x 10,000 float64 are 80 MB
ROUNDING = 1e-12  # of squared distances, relative to squared lengths


@dataclass(frozen=True)
class PRDC:
    """Fractions in [0, 1]; density may exceed 1 where generated images crowd together."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(generated: Features, real: Features, k: int = 5) -> PRDC:
    """Compare the supports of features (N, D) and (M, D).

    Raises:
        InvalidInput: a set has no more than k rows, or the dimensions differ.
    """
    if min(len(generated), len(real)) <= k or generated.shape[1] != real.shape[1]:
        raise InvalidInput(
            f"the features have the shapes {generated.shape} and {real.shape}, but both need more"
            f" than k = {k} rows and the same number of columns"
        )
    ours, theirs = centred(generated, real)
    our_reach, their_reach = (squared_radii(x, k) for x in (ours, theirs))
    # or rounding would decide whether the k-th neighbour itself lies in the ball
    slack = ROUNDING * max(float(x.square().sum(1).max()) for x in (ours, theirs))
    in_real, num_balls = 0, 0
    reached = torch.zeros(len(theirs), dtype=torch.bool)  # by a ball around a generated image
    covered = torch.zeros(len(theirs), dtype=torch.bool)  # with a generated image in its own ball
    for rows, reach in zip(ours.split(CHUNK), our_reach.split(CHUNK), strict=True):
        distances = squared_distances(rows, theirs)
        inside = distances <= their_reach + slack
        in_real += int(inside.any(1).sum())
        num_balls += int(inside.sum())
        covered |= inside.any(0)
        reached |= (distances <= reach[:, None] + slack).any(0)
    return PRDC(
        precision=in_real / len(ours),
        recall=int(reached.sum()) / len(theirs),
        density=num_balls / (k * len(ours)),
        coverage=int(covered.sum()) / len(theirs),
    )


def centred(generated: Features, real: Features) -> tuple[Tensor, Tensor]:
    """Both in float64 about the real mean, which keeps the digits of small distances."""
    centre = np.asarray(real, np.float64).mean(0)
    return torch.from_numpy(generated - centre), torch.from_numpy(real - centre)


def squared_radii(points: Tensor, k: int) -> Tensor:
    """Squared distance of each point (N, D) to its k-th nearest other one, (N,)."""
    chunks = [
        # k + 1 since the point itself is among them
        squared_distances(rows, points).topk(k + 1, largest=False).values[:, -1]
        for rows in points.split(CHUNK)
    ]
    return torch.cat(chunks)


def squared_distances(rows: Tensor, points: Tensor) -> Tensor:
    """Of rows (N, D) and points (M, D), (N, M)."""
    squares = rows.square().sum(1, keepdim=True) + points.square().sum(1)
    return squares.addmm_(rows, points.T, alpha=-2)
