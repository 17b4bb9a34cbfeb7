"""Shares of what there is to train on, drawn by class and by whole groups.

A group is all that shows one thing: the images of a patient, or the copies of a tile.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def draw_fraction(
    labels: NDArray[np.intp], groups: Sequence[int], rows: NDArray[np.intp], share: float, seed: int
) -> NDArray[np.intp]:
    """Those of the rows that are of a drawn share of the groups of each class, one at least.

    With one seed, a smaller share is part of a larger one.
    """
    numbers = np.array(groups)
    chosen = drawn_groups(labels[rows], numbers[rows], share, seed)
    return rows[np.isin(numbers[rows], chosen)]


def drawn_groups(
    labels: NDArray[np.intp], groups: NDArray[np.intp], share: float, seed: int
) -> NDArray[np.intp]:
    """A share of the groups of each label, one at least; the groups of a larger share hold them."""
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        names = rng.permutation(np.unique(groups[labels == label]))
        chosen.append(names[: max(1, round(share * len(names)))])
    return np.concatenate(chosen)
