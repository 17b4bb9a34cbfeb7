"""Seams of an image that was made in windows: is there more of an edge where windows met?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.errors import InvalidInput


@dataclass(frozen=True)
class SeamScore:
    """`worst` is that of the phase (0 <= phase < period) with the strongest edges.

    Both are ratios of mean squared gradients, 1 where windows left no trace. A real image's `worst`
    is a little above 1 by chance, the more so the smaller it is: compare with it.
    """

    at_origin: float
    worst: float
    phase: int


def seam_score(pixels: NDArray[np.number], period: int) -> SeamScore:
    """Squared gradient across every `period`-th line over that across the other lines.

    Args:
        pixels: (H, W) or (H, W, C), of any scale.
        period: of the windows, in pixels; lines k * period + phase, between pixel `line - 1` and
            pixel `line`, are compared with all others, rows and columns alike.

    Raises:
        InvalidInput: the image is smaller than two periods.
    """
    if period < 2 or min(pixels.shape[:2]) < 2 * period:
        raise InvalidInput(
            f"period is {period} and the image {pixels.shape[0]} x {pixels.shape[1]}, but each side"
            " must hold two periods of at least 2 pixels; give a larger image"
        )
    sums, counts = np.zeros(period), np.zeros(period)
    for axis in (0, 1):
        energy = np.square(np.diff(pixels.astype(np.float64), axis=axis))
        lines = energy.mean(axis=tuple(each for each in range(energy.ndim) if each != axis))
        phases = np.arange(1, len(lines) + 1) % period
        sums += np.bincount(phases, lines, minlength=period)
        counts += np.bincount(phases, minlength=period)
    scores = _against_the_others(sums, counts)
    phase = int(scores.argmax())
    return SeamScore(float(scores[0]), float(scores[phase]), phase)


def _against_the_others(
    sums: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean of each phase over the mean of all other phases; 1 where nothing changes at all."""
    others = (sums.sum() - sums) / (counts.sum() - counts)
    means = sums / counts
    return np.where(sums.sum() > 0, means / np.maximum(others, 1e-300), 1.0)
