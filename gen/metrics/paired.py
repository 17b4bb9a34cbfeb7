"""How well classifiers tell held-out tiles, and by how much one is better than another.

Classifiers of two kinds are trained with the same seeds and judge the same tiles, so their figures
differ by less than either is uncertain by; see `gen.metrics.crossed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.errors import InvalidInput
from gen.metrics.anomaly import auroc
from gen.metrics.crossed import draw_crossed, estimate_of
from gen.metrics.intervals import Estimate
from gen.metrics.weighted import Floats


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
    draws = draw_crossed(held_out.labels, held_out.groups, len(probabilities), num_resamples, seed)
    found = {}
    for name, figure in (("accuracy", accuracy), ("macro_auroc", macro_auroc)):
        values = figure(probabilities, held_out.labels, draws.images)
        if other is not None:
            values = values - figure(other, held_out.labels, draws.images)
        found[name] = estimate_of(draws.over_seeds(values))
    return found


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

    A pair of a tile of the class and one of another counts as often as both are drawn; see
    `gen.metrics.anomaly.auroc`.
    """
    areas: Floats = np.mean(
        [
            [auroc(scores[:, label], labels == label)(weights) for scores in probabilities]
            for label in range(probabilities.shape[2])
        ],
        axis=0,
    )
    return areas.T
