"""Bootstraps of any figure of images that may count several times, and of gaps between figures.

A figure that is no mean over images, such as an area under a curve of all their pixels, is asked
again with how often each image was drawn.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gen.errors import InvalidInput
from gen.metrics.intervals import LEVELS, MIN_COUNT, Estimate

Floats = NDArray[np.float64]
Values = Floats | NDArray[np.integer]
Figure: TypeAlias = Callable[[Floats], Floats]
"""How often each of N images counts, (R, N) -> the figure of each of R draws, (R,)."""


def bootstrap(
    figure: Figure,
    patients: Sequence[str],
    groups: Sequence[int] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """A figure of all images, and its interval over draws of patients, each with all images.

    Figures of the same images are drawn alike under one seed, so that a `gap` is paired. With fewer
    than about twenty patients the interval is too narrow, as bootstraps are.

    Args:
        figure: asked once for all images and once for all draws.
        patients: N, whose image each is.
        groups: N, such as 0 for healthy and 1 for diseased: no group is ever empty.
        num_resamples: draws of as many patients, with repetition.
        seed: of the draws.

    Raises:
        InvalidInput: there are fewer than four patients.
    """
    names, codes = np.unique(np.array(patients), return_inverse=True)
    if len(names) < MIN_COUNT:
        raise InvalidInput(
            f"patients are {len(names)} different ones, but an interval needs at least {MIN_COUNT};"
            " give more"
        )
    kinds = np.zeros(len(names), np.int64)
    np.bitwise_or.at(kinds, codes, 1 << np.asarray(groups or [0] * len(codes)))
    rng = np.random.default_rng(seed)
    counts = np.zeros((num_resamples, len(names)))
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        counts[:, rows] = rng.multinomial(
            len(rows), np.full(len(rows), 1 / len(rows)), num_resamples
        )
    (value,) = figure(np.ones((1, len(codes))))
    low, high = np.quantile(figure(counts[:, codes]), LEVELS)
    return Estimate(float(value), float(low), float(high))


def mean_of(values: Values) -> Figure:
    """The mean of a value of each image (N,)."""
    return ratio_of(values, np.ones(len(values)))


def ratio_of(numerators: Values, denominators: Values) -> Figure:
    """The sum of one value of each image (N,) over the sum of another, such as hits over boxes."""

    def figure(weights: Floats) -> Floats:
        ratios: Floats = (weights @ numerators) / (weights @ denominators)
        return ratios

    return figure


def gap(first: Figure, second: Figure) -> Figure:
    """The first figure less the second, of the same images."""
    return lambda weights: first(weights) - second(weights)
