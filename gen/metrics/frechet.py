"""Fréchet distance between two sets of features.

d^2 = |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))   (Heusel et al. 2017, equation 6)

It is biased upwards for small sets: see `gen.metrics.intervals.against_floor`.
"""

import numpy as np
import torch
from torch import Tensor

from gen.errors import InvalidInput
from gen.metrics.intervals import Features


def frechet_distance(first: Features, second: Features) -> float:
    """Squared Fréchet distance of Gaussians fitted to features (N, D) and (M, D).

    Raises:
        InvalidInput: a set has fewer than two rows, or the dimensions differ.
    """
    if min(len(first), len(second)) < 2 or first.shape[1] != second.shape[1]:
        raise InvalidInput(
            f"the features have the shapes {first.shape} and {second.shape}, but need at least two"
            " rows each and the same number of columns"
        )
    sets = [torch.from_numpy(np.asarray(each, np.float64)) for each in (first, second)]
    shift = sets[0].mean(0) - sets[1].mean(0)
    roots = [_covariance_root(each) for each in sets]
    spread = sum(float(root.square().sum()) for root in roots)
    # S = R'R for both, so the eigenvalues of S1 S2 are the squared singular values of R1 R2'
    shared = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    return float(shift @ shift) + spread - 2 * float(shared)


def _covariance_root(features: Tensor) -> Tensor:
    """Some R with at most D rows and R'R the covariance of features (N, D)."""
    centred = features - features.mean(0)
    scale = float(np.sqrt(len(features) - 1))
    if len(features) <= features.shape[1]:
        return centred / scale
    root, failed = torch.linalg.cholesky_ex(centred.T @ centred, upper=True)
    if failed:  # a column is constant or follows from others
        root = torch.linalg.qr(centred, mode="r").R
    return root / scale
