"""Whether anomaly maps are high where lesions are: AP, AUPRO and Dice over all pixels.

Pixels are counted once, by image and by region, at thresholds that are values of the map itself;
every figure of every draw of images is then a sum of these counts. An increasing function of the
map changes none but `dice_at`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from gen.errors import InvalidInput
from gen.metrics.anomaly import Covered, Maps, MaskRule, binarise
from gen.metrics.weighted import Figure, Floats, ratio_of

NUM_LEVELS = 4096  # thresholds: AP is off by less than 1 / 1000
MAX_FALSE_POSITIVE_RATE = 0.3  # of AUPRO, as Bergmann et al. 2021 integrate it
_NEIGHBOURS = np.ones((3, 3))  # pixels of one region may touch by a corner


@dataclass(frozen=True)
class PixelCounts:
    """Pixels of N images, and of their G lesions, at or above each of K falling thresholds.

    Args:
        rule: by which a pixel belongs to a lesion.
        lesion: (N, K) lesion pixels of each image.
        healthy: (N, K) other pixels.
        regions: (G, K) the share of each connected lesion.
        owners: (G,) whose region each is.
    """

    rule: MaskRule
    lesion: Floats
    healthy: Floats
    regions: Floats
    owners: NDArray[np.intp]

    @property
    def prevalence(self) -> float:
        """The share of pixels in lesions, which is the AP of chance."""
        lesion, healthy = self.lesion[:, -1].sum(), self.healthy[:, -1].sum()
        return float(lesion / (lesion + healthy))


def count_pixels(maps: Maps, covered: Covered, rule: MaskRule = "half") -> PixelCounts:
    """Count pixels of maps (N, S, S) in and beside lesions.

    Args:
        maps: larger is less healthy.
        covered: (N, S, S), the share of each pixel that lesions cover; an image may have none.
        rule: from which share on a pixel belongs to a lesion.

    Raises:
        InvalidInput: the shapes differ, or no pixel or every pixel is in a lesion.
    """
    inside = _lesions(maps, covered, rule)
    if inside.all() or not inside.any():
        raise InvalidInput(
            f"lesions hold {inside.sum()} of {inside.size} pixels, but maps are judged by lesions"
            " and what is around them; give both"
        )
    levels = _levels(maps[inside], maps[~inside])
    place = np.searchsorted(levels, maps, side="right") - 1
    numbered = np.zeros(maps.shape, np.int64)
    owners: list[int] = []
    for image, mask in enumerate(inside):
        found, count = label(mask, _NEIGHBOURS)
        numbered[image] = np.where(mask, found + len(owners), 0)
        owners += [image] * count
    rows = np.broadcast_to(np.arange(len(maps))[:, None, None], maps.shape)
    healthy = _at_or_above(rows[~inside], place[~inside], len(maps), len(levels))
    regions = _at_or_above(numbered[inside] - 1, place[inside], len(owners), len(levels))
    lesion = np.zeros_like(healthy)
    np.add.at(lesion, owners, regions)
    return PixelCounts(rule, lesion, healthy, regions / regions[:, -1:], np.array(owners))


def _levels(lesion: Maps, healthy: Maps) -> Maps:
    """Rising thresholds: every value of the map, or as many from lesions as from around them."""
    every = np.unique(np.concatenate([lesion, healthy]))
    if len(every) <= NUM_LEVELS:
        return every
    steps = np.linspace(0, 1, NUM_LEVELS // 2)
    drawn = [np.quantile(each, steps, method="inverted_cdf") for each in (lesion, healthy)]
    return np.unique(np.concatenate(drawn))


def _at_or_above(
    rows: NDArray[np.intp], place: NDArray[np.intp], num_rows: int, num_levels: int
) -> Floats:
    """How many pixels of each row reach each level, the highest level first, (rows, levels)."""
    counts = np.bincount(rows * num_levels + place, minlength=num_rows * num_levels)
    falling = counts.reshape(num_rows, num_levels)[:, ::-1]
    return falling.cumsum(1).astype(np.float64)


def average_precision(counts: PixelCounts) -> Figure:
    """AP, the sum of precisions weighted by the rise of recall: the area AUPRC without a chord."""

    def figure(weights: Floats) -> Floats:
        hits, alarms = weights @ counts.lesion, weights @ counts.healthy
        precision = hits / np.maximum(hits + alarms, 1)
        rise = np.diff(hits, axis=1, prepend=0) / hits[:, -1:]
        areas: Floats = (precision * rise).sum(1)
        return areas

    return figure


def aupro(counts: PixelCounts, max_rate: float = MAX_FALSE_POSITIVE_RATE) -> Figure:
    """Mean share found of each lesion, averaged over false positive rates up to `max_rate`.

    Bergmann et al. 2021 (MVTec AD, section 5.2): small lesions count as much as large ones. Chance
    gives max_rate / 2.
    """

    def figure(weights: Floats) -> Floats:
        alarms, own = weights @ counts.healthy, weights[:, counts.owners]
        rate = alarms / alarms[:, -1:]
        found = (own @ counts.regions) / own.sum(1, keepdims=True)
        left, low = (np.pad(each, ((0, 0), (1, 0)))[:, :-1] for each in (rate, found))
        width = np.clip(rate, None, max_rate) - np.clip(left, None, max_rate)
        slope = (found - low) / np.where(rate > left, rate - left, 1)
        areas: Floats = (width * (low + slope * width / 2)).sum(1)
        return areas / max_rate

    return figure


def best_dice(counts: PixelCounts) -> Figure:
    """The largest Dice of all pixels at any one threshold, found on these very masks.

    A bound on what a threshold could reach, not what one reached: see `dice_at`.
    """

    def figure(weights: Floats) -> Floats:
        hits, alarms = weights @ counts.lesion, weights @ counts.healthy
        scores: Floats = (2 * hits / (hits + alarms + hits[:, -1:])).max(1)
        return scores

    return figure


def dice_at(
    maps: Maps, covered: Covered, threshold: float | Floats, rule: MaskRule = "half"
) -> Figure:
    """Dice of all pixels above a threshold that these lesions had no part in.

    Args:
        maps, covered, rule: see `count_pixels`.
        threshold: one, or (N,), one an image.

    Raises:
        InvalidInput: the shapes differ.
    """
    inside, above = _lesions(maps, covered, rule), maps > np.reshape(threshold, (-1, 1, 1))
    both, sizes = (above & inside).sum((1, 2)), above.sum((1, 2)) + inside.sum((1, 2))
    return ratio_of(2 * both, sizes)


def _lesions(maps: Maps, covered: Covered, rule: MaskRule) -> NDArray[np.bool_]:
    if maps.shape != covered.shape or maps.ndim != 3:
        raise InvalidInput(
            f"maps have the shape {maps.shape} and covered {covered.shape}, but both must be one"
            " (N, S, S); shrink them alike"
        )
    return binarise(covered, rule)
