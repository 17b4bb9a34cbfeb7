"""Figures of classifiers of several seeds on the same held-out images, both drawn again at once.

Seeds and groups of images are resampled crossed (Owen 2007, The pigeonhole bootstrap, arXiv
0712.1111), and one fewer is drawn of each than there are, without which the variance would be
(n - 1) / n of what it should be (McCarthy & Snowden 1985, The bootstrap and finite population
sampling). Whatever is compared is drawn alike, so that a gap is the difference of two rows of
draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.metrics.intervals import LEVELS, Estimate
from gen.metrics.weighted import Floats


@dataclass(frozen=True)
class Draws:
    """How often images (1 + R, N) and seeds (1 + R, S) count; first all of them once."""

    images: Floats
    seeds: Floats

    def over_seeds(self, figures: Floats) -> Floats:
        """The mean over seeds (1 + R, ...) of figures (1 + R, S, ...)."""
        weights = self.seeds.reshape(*self.seeds.shape, *[1] * (figures.ndim - 2))
        means: Floats = (figures * weights).sum(1) / weights.sum(1)
        return means


def draw_crossed(
    strata: NDArray[np.integer],
    groups: Sequence[int] | NDArray[np.integer],
    num_seeds: int,
    num_resamples: int,
    seed: int,
) -> Draws:
    """Draw whole groups within each stratum, and seeds.

    Args:
        strata: (N,), such as the class of each image.
        groups: (N,), such as the patient of each; one group in two strata is drawn apart in each.
        num_seeds: S.
        num_resamples: R.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    numbers = np.asarray(groups)
    images = np.ones((1 + num_resamples, len(strata)))
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        names, codes = np.unique(numbers[rows], return_inverse=True)
        images[1:, rows] = _counts(len(names), num_resamples, rng)[:, codes]
    seeds = np.ones((1 + num_resamples, num_seeds))
    seeds[1:] = _counts(num_seeds, num_resamples, rng)
    return Draws(images, seeds)


def estimate_of(draws: Floats) -> Estimate:
    """The figure of everything, first in `draws` (1 + R,), and its interval over the others.

    Draws without an image of a kind that the figure needs are nan and do not count.
    """
    low, high = np.nanquantile(draws[1:], LEVELS)
    return Estimate(float(draws[0]), float(low), float(high))


def _counts(count: int, num_resamples: int, rng: np.random.Generator) -> Floats:
    """How often each of `count` is among count - 1 drawn with repetition, (R, count).

    Scaled so that a row sums to `count`: nothing weighs less for being resampled. One alone is
    always there.
    """
    if count == 1:
        return np.ones((num_resamples, 1))
    drawn = rng.multinomial(count - 1, np.full(count, 1 / count), size=num_resamples)
    counts: Floats = drawn * np.float64(count / (count - 1))
    return counts
