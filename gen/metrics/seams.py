"""Edges of an image that was made in windows: are there more where windows met, and enough?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.errors import InvalidInput
from gen.metrics.intervals import AgainstFloor, Features, against_floor
from gen.metrics.views import Block, View, blocks_of

PERIODS_A_BLOCK = 2


@dataclass(frozen=True)
class SeamScore:
    """`worst` is that of the phase (0 <= phase < period) with the strongest edges.

    Both are ratios of mean squared gradients, 1 where windows left no trace. A real image's `worst`
    is a little above 1 by chance, the more so the smaller it is: compare with it.
    """

    at_origin: float
    worst: float
    phase: int


@dataclass(frozen=True)
class SeamScores:
    """Seam scores of half the blocks of an image, beside those of as many of real ones."""

    at_origin: AgainstFloor
    worst: AgainstFloor


def seam_score(pixels: NDArray[np.uint8] | NDArray[np.floating], period: int) -> SeamScore:
    """Squared gradient across every `period`-th line over that across other lines.

    JPEG leaves edges every 8 or 16 pixels, real scans have been through it, and so have ours: lines
    are compared with those that are as far from such an edge, as far as the period lets them.

    Args:
        pixels: (H, W) or (H, W, C), of any scale.
        period: of the windows, in pixels; lines k * period + phase, between pixel `line - 1` and
            pixel `line`, are compared with others, rows and columns alike.

    Raises:
        InvalidInput: the image is smaller than two periods.
    """
    height, width = pixels.shape[:2]
    _check(height, width, period)
    whole = Block(0, 0, height, width)
    return score_of(_energies(pixels, whole, whole, period))


def line_energies(view: View, period: int) -> NDArray[np.float64]:
    """Energies (blocks, 2, period) of a picture of any size, a block at a time in memory.

    [:, 0] are sums of squared gradients across the lines of each phase, [:, 1] of how many pairs
    of pixels. Blocks are added for the score of several.

    Raises:
        InvalidInput: the image is smaller than two periods.
    """
    _check(view.height, view.width, period)
    energies = []
    for block in blocks_of(view, PERIODS_A_BLOCK * period):
        # the gradients across its first lines are to the pixels before
        top, left = max(0, block.top - 1), max(0, block.left - 1)
        seen = Block(top, left, block.top + block.height - top, block.left + block.width - left)
        pixels = view.read(seen.top, seen.left, seen.height, seen.width)
        energies.append(_energies(pixels, seen, block, period))
    return np.stack(energies)


def score_of(energies: NDArray[np.float64]) -> SeamScore:
    """The score of energies (2, period)."""
    scores = _against_the_others(*energies)
    phase = int(scores.argmax())
    return SeamScore(float(scores[0]), float(scores[phase]), phase)


def seam_scores(image: NDArray[np.float64], real: NDArray[np.float64], seed: int = 0) -> SeamScores:
    """Scores of an image's and of real images' energies (blocks, 2, period), each beside the other.

    Intervals are over halves of the blocks, and `worst`, which is the higher the fewer they are, is
    of equally many of both.

    Raises:
        InvalidInput: there are fewer than four blocks of either.
    """

    def score(name: str) -> AgainstFloor:
        def figure(first: Features, _: Features) -> float:
            return float(getattr(score_of(first.sum(0).reshape(2, -1)), name))

        made, true = (each.reshape(len(each), -1) for each in (image, real))
        return against_floor(figure, made, true, [str(row) for row in range(len(real))], seed=seed)

    return SeamScores(score("at_origin"), score("worst"))


def sharpness(image: NDArray[np.float64], real: NDArray[np.float64], seed: int = 0) -> AgainstFloor:
    """Mean squared gradient of an image over that of real ones, from `line_energies` of both.

    Below 1 is blur, which encoders hardly see, or more glass. The floor is that of real to real,
    about 1, and as wide as their blocks differ.
    """

    def ratio(first: Features, second: Features) -> float:
        sums, pairs, real_sums, real_pairs = (
            float(each) for half in (first, second) for each in half.sum(0).reshape(2, -1).sum(1)
        )
        return sums / pairs / max(real_sums / real_pairs, 1e-300)

    made, true = (each.reshape(len(each), -1) for each in (image, real))
    return against_floor(ratio, made, true, [str(row) for row in range(len(real))], seed=seed)


def _check(height: int, width: int, period: int) -> None:
    if period < 2 or min(height, width) < 2 * period:
        raise InvalidInput(
            f"period is {period} and the image {height} x {width}, but each side"
            " must hold two periods of at least 2 pixels; give a larger image"
        )


def _energies(
    pixels: NDArray[np.generic], seen: Block, block: Block, period: int
) -> NDArray[np.float64]:
    """Energies (2, period) of the lines of a block, of pixels that show it from `seen` on."""
    energies = np.zeros((2, period))
    values = pixels.astype(np.float64)
    inside = values[block.top - seen.top :], values[:, block.left - seen.left :]
    for axis, start in ((0, seen.top), (1, seen.left)):
        # across rows only the block's own columns, and the other way round
        squares = np.square(np.diff(inside[1 - axis], axis=axis))
        lines = squares.sum(axis=tuple(each for each in range(squares.ndim) if each != axis))
        phases = np.arange(start + 1, start + 1 + len(lines)) % period
        pairs = np.full(len(lines), squares.size / max(1, len(lines)))
        energies[0] += np.bincount(phases, lines, minlength=period)
        energies[1] += np.bincount(phases, pairs, minlength=period)
    return energies


def _against_the_others(
    sums: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean of each phase over that of the others of its kind; 1 where nothing changes at all."""
    kinds = _kinds(len(sums))
    totals, pairs = sums.reshape(-1, kinds), counts.reshape(-1, kinds)
    others = (totals.sum(0) - totals) / (pairs.sum(0) - pairs)
    scores = np.where(totals.sum(0) > 0, totals / pairs / np.maximum(others, 1e-300), 1.0)
    return scores.flatten()


def _kinds(period: int) -> int:
    """Kinds of lines: as many as a JPEG block has, where there are four phases of each or more."""
    fitting = [each for each in (16, 8, 4, 2) if period % each == 0 and period >= 4 * each]
    return fitting[0] if fitting else 1
