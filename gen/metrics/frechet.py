"""Fréchet distance between two sets of features, with its floor and an interval.

d^2 = |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))   (Heusel et al. 2017, equation 6)

The distance is biased upwards for small sets, so a figure means nothing alone: beside it stands the
floor, the same distance between two sets of real images of disjoint patients, of the same size.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.errors import InvalidInput

Features = NDArray[np.floating]


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


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
    shift = first.mean(0) - second.mean(0)
    roots = [_covariance_root(each) for each in (first, second)]
    spread = sum(np.square(root).sum() for root in roots)
    # S = R'R for both, so the eigenvalues of S1 S2 are the squared singular values of R1 R2'
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return float(shift @ shift + spread - 2 * shared)


def _covariance_root(features: Features) -> Features:
    """Triangular R with R'R the covariance of features (N, D)."""
    centred = features - features.mean(0)
    root: Features = np.linalg.qr(centred, mode="r") / np.sqrt(len(features) - 1)
    return root


@dataclass(frozen=True)
class AgainstFloor:
    """Two Fréchet distances of sets of `size` images: to real ones, and of real ones to others."""

    size: int
    distance: Estimate
    floor: Estimate

    @property
    def ratio(self) -> float:
        """How many times the floor the distance is."""
        return self.distance.value / self.floor.value


def against_floor(
    generated: Features, real: Features, patients: list[str], num_splits: int = 20, seed: int = 0
) -> AgainstFloor:
    """Compare generated and real images with one half of the real ones, over random halvings.

    Args:
        generated: features (N, D).
        real: features (M, D).
        patients: whose image each real one is; the halves share none.
        num_splits: halvings; the interval covers 95 % of them.
        seed: of the halvings.

    Raises:
        InvalidInput: there are fewer than four generated images or real patients.
    """
    if len(generated) < 4 or len(set(patients)) < 4:
        raise InvalidInput(
            f"there are {len(generated)} generated images and {len(set(patients))} real patients,"
            " but a distance needs at least 4 of each; give more"
        )
    rng = np.random.default_rng(seed)
    distances, floors, sizes = [], [], []
    for _ in range(num_splits):
        left, right = disjoint_halves(patients, rng)
        size = min(len(generated), len(left), len(right))
        chosen = rng.permutation(len(generated))[:size]
        distances.append(frechet_distance(generated[chosen], real[right[:size]]))
        floors.append(frechet_distance(real[left[:size]], real[right[:size]]))
        sizes.append(size)
    return AgainstFloor(round(np.mean(sizes)), _estimate(distances), _estimate(floors))


def _estimate(draws: list[float]) -> Estimate:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Estimate(float(np.mean(draws)), float(low), float(high))


def disjoint_halves(
    patients: list[str], rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Shuffled indices of two halves that share no patient."""
    names = np.array(patients)
    unique = rng.permutation(np.unique(names))
    chosen = np.isin(names, unique[: len(unique) // 2])
    return rng.permutation(np.flatnonzero(chosen)), rng.permutation(np.flatnonzero(~chosen))
