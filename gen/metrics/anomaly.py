"""Anomaly maps as they are scored: an image's score, its AUROC, and thresholds from healthy images.

Whether an image is diseased is asked here; where, in anomaly_pixels.py and anomaly_boxes.py; and
whether the healthy image is one, in anomaly_healing.py.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gen.errors import InvalidInput
from gen.metrics.weighted import Figure, Floats

Maps = NDArray[np.floating]
"""(N, S, S), larger is less healthy."""
Covered = NDArray[np.floating] | NDArray[np.bool_]
"""(N, S, S), the share of each pixel that lesions cover, or masks."""
MaskRule = Literal["any", "half"]

TOP_SHARE = 0.01  # of the pixels: as Guo et al. 2025 (Dinomaly, arXiv 2405.14325) score an image
FALSE_POSITIVE_RATE = 0.05  # of the pixels of healthy images


def image_scores(maps: Maps, share: float = TOP_SHARE) -> Floats:
    """The mean (N,) of the largest `share` of each map's pixels, of one at least."""
    flat = maps.reshape(len(maps), -1)
    count = max(1, round(share * flat.shape[1]))
    scores: Floats = np.partition(flat, -count, axis=1)[:, -count:].mean(1, dtype=np.float64)
    return scores


def auroc(scores: NDArray[np.floating], diseased: NDArray[np.bool_]) -> Figure:
    """How often a diseased image scores above a healthy one; a tie counts as half.

    Mann & Whitney 1947; no draw of images may leave a group empty.

    Args:
        scores: (N,).
        diseased: (N,).

    Raises:
        InvalidInput: all images are of one kind.
    """
    if diseased.all() or not diseased.any():
        raise InvalidInput(
            f"diseased holds {diseased.sum()} of {len(diseased)} images, but an AUROC compares"
            " diseased images with healthy ones; give both"
        )
    above = np.sign(scores[diseased][:, None] - scores[~diseased])
    won = (above + 1) / 2

    def figure(weights: Floats) -> Floats:
        own, others = weights[:, diseased], weights[:, ~diseased]
        areas: Floats = ((own @ won) * others).sum(1) / (own.sum(1) * others.sum(1))
        return areas

    return figure


def healthy_threshold(maps: Maps, rate: float = FALSE_POSITIVE_RATE) -> float:
    """The least value that at most `rate` of the pixels of healthy images exceed.

    Raises:
        InvalidInput: there is no map, or the rate is no share.
    """
    if not maps.size or not 0 < rate < 1:
        raise InvalidInput(
            f"there are {len(maps)} maps and rate is {rate}, but a threshold needs maps of healthy"
            " images and a rate above 0 and below 1; try 0.05"
        )
    return float(np.quantile(maps, 1 - rate, method="inverted_cdf"))


def shrink(pixels: NDArray[np.generic], side: int) -> NDArray[np.float32]:
    """Maps or masks (N, S, S) as means of blocks, (N, side, side); of masks, the share covered.

    Raises:
        InvalidInput: the side does not divide S.
    """
    count, height, width = pixels.shape
    if side < 1 or height % side or width % side:
        raise InvalidInput(
            f"side is {side}, but must divide the maps' sides, {height} and {width}; try"
            f" {height // 2}"
        )
    blocks = pixels.reshape(count, side, height // side, side, width // side)
    return blocks.mean((2, 4), dtype=np.float32)


def binarise(covered: Covered, rule: MaskRule) -> NDArray[np.bool_]:
    """The pixels (N, S, S) that belong to lesions.

    Papers differ: "any" takes a pixel that is touched, "half" one that is covered by more than
    half. Scores by the two are not comparable.

    Raises:
        InvalidInput: there is no such rule.
    """
    limits = {"any": 0.0, "half": 0.5}
    if rule not in limits:
        raise InvalidInput(f"rule is {rule!r}, but must be one of: {', '.join(limits)}")
    return covered > limits[rule]
