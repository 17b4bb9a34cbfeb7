"""How well classifiers tell held-out tiles, and by how much one is better than another.

Classifiers of two kinds are trained with the same seeds and judge the same tiles, so their figures
differ by less than either is uncertain by. Seeds and groups of tiles are resampled at once, crossed
(Owen 2007, The pigeonhole bootstrap, arXiv 0712.1111), both kinds alike, and one fewer is drawn of
each than there are, without which the variance would be (n - 1) / n of what it should be (McCarthy
& Snowden 1985, The bootstrap and finite population sampling).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.errors import InvalidInput
from gen.metrics.intervals import LEVELS, Estimate

Floats = NDArray[np.float64]
Figure = Callable[[NDArray[np.floating], NDArray[np.intp], Floats], Floats]


@dataclass(frozen=True)
class HeldOut:
    """Tiles nobody was trained on: `labels` (N,) from 0 up, and N `groups` of near-duplicates.

    Raises:
        InvalidInput: there are fewer than two classes, or two groups of a class.
    """

    labels: NDArray[np.intp]
    groups: Sequence[int]

    def __post_init__(self) -> None:
        num_groups = [
            len({g for g, each in zip(self.groups, self.labels, strict=True) if each == label})
            for label in range(self.num_classes)
        ]
        if len(num_groups) < 2 or min(num_groups) < 2:
            raise InvalidInput(
                f"held-out tiles are of {num_groups} groups a class, but there must be two classes"
                " and two groups of each; hold out more tiles"
            )

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.labels.max()) + 1

    def draw(self, num_resamples: int, rng: np.random.Generator) -> Floats:
        """How often each tile is drawn, (R, N): whole groups, within each class."""
        weights = np.zeros((num_resamples, len(self.labels)))
        for label in range(self.num_classes):
            rows = np.flatnonzero(self.labels == label)
            names, codes = np.unique(np.array(self.groups)[rows], return_inverse=True)
            weights[:, rows] = _counts(len(names), num_resamples, rng)[:, codes]
        return weights


def compare(
    probabilities: NDArray[np.floating],
    held_out: HeldOut,
    other: NDArray[np.floating] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Accuracy and macro AUROC, means over seeds; with `other`, by how much they exceed its.

    The interval covers that other tiles might have been held out and other seeds drawn, not that
    other tiles might have been trained on beyond what the seeds choose among. With few seeds it is
    too narrow, as bootstraps are.

    Args:
        probabilities: (S, N, K), of each seed's classifier for each held-out tile.
        held_out: the N tiles.
        other: (S, N, K) of classifiers of another kind with the same seeds.
        num_resamples: draws.
        seed: of the draws.

    Raises:
        InvalidInput: there is one seed only, or shapes differ.
    """
    expected = (len(probabilities), len(held_out.labels), held_out.num_classes)
    for given in (probabilities, probabilities if other is None else other):
        if given.shape != expected or len(given) < 2:
            raise InvalidInput(
                f"probabilities have the shape {given.shape}, but must be {expected} with two seeds"
                " or more; train with more seeds"
            )
    rng = np.random.default_rng(seed)
    drawn = held_out.draw(num_resamples, rng)
    seeds = _counts(len(probabilities), num_resamples, rng)
    every = np.ones((1, drawn.shape[1])), np.ones((1, len(probabilities)))
    found = {}
    for name, figure in (("accuracy", accuracy), ("macro_auroc", macro_auroc)):
        draws, (value,) = (
            _mean_gap(figure, probabilities, other, held_out.labels, *counts)
            for counts in ((drawn, seeds), every)
        )
        low, high = np.quantile(draws, LEVELS)
        found[name] = Estimate(float(value), float(low), float(high))
    return found


def _mean_gap(
    figure: Figure,
    probabilities: NDArray[np.floating],
    other: NDArray[np.floating] | None,
    labels: NDArray[np.intp],
    tiles: Floats,
    seeds: Floats,
) -> Floats:
    """The mean over seeds (R,) of a figure, less the other's, as tiles and seeds are drawn."""
    gaps = figure(probabilities, labels, tiles)
    if other is not None:
        gaps = gaps - figure(other, labels, tiles)
    means: Floats = (gaps * seeds).sum(1) / seeds.sum(1)
    return means


def accuracy(
    probabilities: NDArray[np.floating], labels: NDArray[np.intp], weights: Floats
) -> Floats:
    """The share of tiles whose most probable class is theirs, (R, S).

    Args:
        probabilities: (S, N, K).
        labels: (N,).
        weights: (R, N), how often each tile counts.
    """
    right = (probabilities.argmax(2) == labels).astype(np.float64)
    shares: Floats = weights @ right.T / weights.sum(1, keepdims=True)
    return shares


def macro_auroc(
    probabilities: NDArray[np.floating], labels: NDArray[np.intp], weights: Floats
) -> Floats:
    """Each class against the rest, the mean over classes, (R, S); arguments as of `accuracy`.

    A pair of a tile of the class and one of another counts as often as both are drawn; a tie counts
    as half (Mann & Whitney 1947).
    """
    areas = np.zeros((len(weights), len(probabilities)))
    num_classes = probabilities.shape[2]
    for label in range(num_classes):
        own, rest = weights[:, labels == label], weights[:, labels != label]
        pairs = own.sum(1) * rest.sum(1)
        for column, scores in enumerate(probabilities[:, :, label]):
            above = scores[labels == label][:, None] - scores[labels != label]
            won = (np.sign(above) + 1) / 2
            areas[:, column] += ((own @ won) * rest).sum(1) / pairs / num_classes
    return areas


def _counts(count: int, num_resamples: int, rng: np.random.Generator) -> Floats:
    """How often each of `count` is among count - 1 drawn with repetition, (R, count).

    Scaled so that a row sums to `count`: no class weighs less for being resampled.
    """
    drawn = rng.multinomial(count - 1, np.full(count, 1 / count), size=num_resamples)
    counts: Floats = drawn * np.float64(count / (count - 1))
    return counts
