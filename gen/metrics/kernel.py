"""Kernel distance: squared maximum mean discrepancy under a cubic kernel.

Bińkowski et al. 2018, section 4: k(x, y) = (x.y / D + 1)^3, the unbiased estimate. It may fall
below zero where two sets are alike.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from gen.errors import InvalidInput
from gen.metrics.intervals import Features, content_order

MAX_SUBSET = 1000
CHUNK = 1024  # rows of a kernel matrix held at once: 1024 x 10,000 float64 are 80 MB


def kernel_distances(
    first: Features,
    second: Features,
    num_subsets: int = 20,
    subset_size: int | None = None,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Unbiased estimates (num_subsets,) from random subsets; their mean is the distance.

    Their spread is that of sets of `subset_size`, not of the whole ones; for an interval see
    `gen.metrics.intervals.against_floor` with `kernel_distance`.

    Args:
        first: features (N, D).
        second: features (M, D).
        num_subsets: draws, each without repetition.
        subset_size: None is 1000, or half of the smaller set.
        seed: of the subsets. The order of the images changes nothing.

    Raises:
        InvalidInput: a subset would be a whole set, so that all were the same, or would hold
            fewer than two rows, or the dimensions differ.
    """
    _check_columns(first, second)
    smaller = min(len(first), len(second))
    size = min(MAX_SUBSET, smaller // 2) if subset_size is None else subset_size
    if not 2 <= size < smaller:
        raise InvalidInput(
            f"subset_size is {size}, but must be at least 2 and below the {smaller} images of the"
            " smaller set; choose another, or give more images"
        )
    first, second = (each[content_order(each)] for each in (first, second))
    rng = np.random.default_rng(seed)
    return np.array(
        [
            kernel_distance(*(each[rng.permutation(len(each))[:size]] for each in (first, second)))
            for _ in range(num_subsets)
        ]
    )


def kernel_distance(first: Features, second: Features) -> float:
    """The unbiased estimate of the squared discrepancy of features (N, D) and (M, D).

    Raises:
        InvalidInput: a set has fewer than two rows, or the dimensions differ.
    """
    _check_columns(first, second)
    first, second = (np.asarray(each, np.float64) for each in (first, second))
    between = _kernel_sum(first, second) / (len(first) * len(second))
    return _mean_of_others(first) + _mean_of_others(second) - 2 * between


def _mean_of_others(features: Features) -> float:
    """Mean kernel of each row with every other one, which makes the estimate unbiased."""
    count, columns = features.shape
    own = ((np.square(features).sum(1) / columns + 1) ** 3).sum()
    return float(_kernel_sum(features, features) - own) / (count * (count - 1))


def _kernel_sum(first: Features, second: Features) -> float:
    total = 0.0
    columns = torch.from_numpy(second).T
    for rows in torch.from_numpy(first).split(CHUNK):
        base = (rows @ columns).div_(first.shape[1]).add_(1)
        total += float(torch.dot((base * base).flatten(), base.flatten()))  # faster than **3
    return total


def _check_columns(first: Features, second: Features) -> None:
    if min(len(first), len(second)) < 2 or first.shape[1] != second.shape[1]:
        raise InvalidInput(
            f"the features have the shapes {first.shape} and {second.shape}, but need at least two"
            " rows each and the same number of columns"
        )
