"""Figures with 95 % intervals: beside the floor of real images, of means, and of gaps.

Most figures of two sets are biased by how many images there are, so one means nothing alone.
Beside it stands its floor: what the same figure is for real images of other patients, from sets of
the same size. No set of images can be expected to do better.

Draws are of halves, without repetition. A resample with repetition holds every third image not at
all and others twice, which a covariance or a nearest neighbour takes for a narrower set; a half
holds each image once, and for any smooth figure of all n images the variance over halves is the
variance from n new ones: s^2 / (n/2) * (1 - 1/2) = s^2 / n (Shao & Wu 1989, the jackknife that
deletes half).
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.errors import InvalidInput

Features = NDArray[np.floating]
Distance = Callable[[Features, Features], float]
"""(features of images to judge (N, D), of real images (N, D)) -> a figure."""

MIN_COUNT = 4  # images or patients: below it two halves hold one each, and have no spread
LEVELS = (0.025, 0.975)


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class AgainstFloor:
    """A figure from sets of `size` images: of generated to real ones, and of real to real ones."""

    size: int
    distance: Estimate
    floor: Estimate

    @property
    def ratio(self) -> float | None:
        """How many times the floor the distance is; None if the floor may be zero."""
        return self.distance.value / self.floor.value if self.floor.low > 0 else None


def against_floor(
    distance: Distance,
    generated: Features,
    real: Features,
    patients: Sequence[str],
    num_draws: int = 40,
    seed: int = 0,
) -> AgainstFloor:
    """Compare generated and real images with one half of the real patients, over random halvings.

    The interval covers that other patients and other generated images might have been drawn, from
    the same population and the same generator; it does not cover another training of the
    generator or another encoder. It is at least as wide as it should be: exact where there are as
    many generated as real images, wider where one set is larger. Generated images count as
    independent of each other.

    Args:
        distance: called twice a draw; one that ignores its second set gives the figure of a set
            alone, such as its diversity, beside that of real images.
        generated: features (N, D); half of them in each draw.
        real: features (M, D).
        patients: whose image each real one is; the halves share none.
        num_draws: halvings; below 39 the interval is too narrow.
        seed: of the halvings. The order of the images changes nothing.

    Raises:
        InvalidInput: see `halvings`.
    """
    distances, floors, sizes = [], [], []
    for half, left, right in halvings(generated, real, patients, num_draws, seed):
        distances.append(distance(half, right))
        floors.append(distance(left, right))
        sizes.append(len(half))
    return AgainstFloor(round(np.mean(sizes)), estimate(distances), estimate(floors))


def estimate(draws: Sequence[float] | NDArray[np.floating]) -> Estimate:
    """The mean of draws and the interval that holds a further one with 95 %."""
    # "weibull" is the rule by which 39 draws or more hold the next with 95 % and not with 90 %
    low, high = np.quantile(draws, LEVELS, method="weibull")
    return Estimate(float(np.mean(draws)), float(low), float(high))


def halvings(
    generated: Features,
    real: Features,
    patients: Sequence[str],
    num_draws: int,
    seed: int,
    max_size: int = 2**31,
) -> Iterator[tuple[Features, Features, Features]]:
    """Yield half the generated images and two sets of real ones of disjoint patients, of one size.

    With more than twice `max_size` images an interval is wider than it must be: of so many only.

    Raises:
        InvalidInput: there are fewer than four generated images or real patients, or not as many
            patients as real images.
    """
    if len(patients) != len(real):
        raise InvalidInput(
            f"there are {len(real)} real images, but {len(patients)} patients; name one an image"
        )
    if min(len(generated), len(set(patients))) < MIN_COUNT:
        raise InvalidInput(
            f"there are {len(generated)} generated images and {len(set(patients))} real patients,"
            f" but a distance needs at least {MIN_COUNT} of each; give more"
        )
    generated, order = generated[content_order(generated)], content_order(real)
    real, names = real[order], [patients[row] for row in order]
    rng = np.random.default_rng(seed)
    for _ in range(num_draws):
        left, right = disjoint_halves(names, rng)
        size = min(len(generated) // 2, len(left), len(right), max_size)
        chosen = rng.permutation(len(generated))[:size]
        yield generated[chosen], real[left[:size]], real[right[:size]]


def disjoint_halves(
    patients: Sequence[str], rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Shuffled indices of two halves that share no patient."""
    unique, codes = np.unique(np.array(patients), return_inverse=True)
    chosen = np.isin(codes, rng.permutation(len(unique))[: len(unique) // 2])
    return rng.permutation(np.flatnonzero(chosen)), rng.permutation(np.flatnonzero(~chosen))


def content_order(rows: NDArray[np.generic]) -> NDArray[np.intp]:
    """An order of rows that depends on what they hold alone, so that a seed draws the same ones."""
    digests = [hashlib.sha256(row.tobytes()).digest() for row in rows]
    return np.array(sorted(range(len(rows)), key=digests.__getitem__), np.intp)


def bootstrap_mean(
    values: NDArray[np.floating],
    patients: Sequence[str] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The mean of a figure of each image, resampled by patient.

    The interval covers that other patients might have been drawn, each with all images. With fewer
    than about twenty patients it is too narrow, as bootstraps are.

    Args:
        values: (N,).
        patients: whose image each is, or which prompt's; None if each is independent.
        num_resamples: draws of as many patients, with repetition.
        seed: of the draws. The order of the images changes nothing.

    Raises:
        InvalidInput: there are fewer than four patients, or not as many names as values.
    """
    draws = _resampled_means([values], [_names("values", values, patients)], num_resamples, seed)
    low, high = np.quantile(draws[:, 0], LEVELS)
    return Estimate(float(values.mean()), float(low), float(high))


def bootstrap_gap(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    first_patients: Sequence[str] | None = None,
    second_patients: Sequence[str] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Mean of the first group less that of the second, both resampled by patient.

    A patient with images in both groups is drawn for both at once: what is peculiar to such
    patients cancels in the gap. See `bootstrap_mean` for the arguments, the interval and errors.
    """
    names = [
        _names("first", first, first_patients),
        _names("second", second, second_patients),
    ]
    draws = _resampled_means([first, second], names, num_resamples, seed)
    low, high = np.quantile(draws[:, 0] - draws[:, 1], LEVELS)
    return Estimate(float(first.mean() - second.mean()), float(low), float(high))


def _names(
    argument: str, values: NDArray[np.floating], patients: Sequence[str] | None
) -> NDArray[np.str_]:
    """A name (N,) for each value, its own if it has no patient."""
    if patients is None:
        ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
        names = np.array([f"{argument}\n{rank:09d}" for rank in ranks])  # no patient's name
    else:
        names = np.array(patients)
    if len(names) != len(values) or len(np.unique(names)) < MIN_COUNT:
        raise InvalidInput(
            f"{argument} holds {len(values)} images of {len(np.unique(names))} patients under"
            f" {len(names)} names, but needs a name for each image and at least {MIN_COUNT}"
            " patients; give more"
        )
    return names


def _resampled_means(
    groups: Sequence[NDArray[np.floating]],
    names: Sequence[NDArray[np.str_]],
    num_resamples: int,
    seed: int,
) -> NDArray[np.float64]:
    """Means (num_resamples, G) of G groups in each draw of patients."""
    unique = np.unique(np.concatenate(names))
    codes = [np.searchsorted(unique, each) for each in names]
    counts = np.stack([np.bincount(each, minlength=len(unique)) for each in codes], 1)
    sums = np.stack(
        [np.bincount(c, v, minlength=len(unique)) for c, v in zip(codes, groups, strict=True)], 1
    )
    # patients of one group only and of several are drawn apart, so that no group is ever empty
    kinds = (counts > 0) @ (1 << np.arange(len(groups)))
    strata = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
    rng = np.random.default_rng(seed)
    draws = np.empty((num_resamples, len(groups)))
    for draw in draws:
        rows = np.concatenate([rng.choice(stratum, len(stratum)) for stratum in strata])
        draw[:] = sums[rows].sum(0) / counts[rows].sum(0)
    return draws
