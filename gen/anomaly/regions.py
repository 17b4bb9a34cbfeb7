"""From a map to what a reader is shown: cleaned maps, regions, boxes and one score.

Maps and masks are (S, S) arrays.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label, median_filter

MEDIAN = 5  # pixels, as the comparison of Behrendt et al. 2023 filters maps
SMALLEST = 0.0008  # of the picture: smaller regions are not shown
BORDER = 0.02  # of the side, where what is painted has no context
TOP = 0.01  # of the pixels, whose mean is the score of a picture (Guo et al. 2025, Dinomaly)

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Region:
    """A connected part of a mask: its box (x, y, w, h) in pixels, and the map's maximum in it."""

    box: tuple[float, float, float, float]
    score: float

    def as_json(self) -> dict[str, float]:
        """x, y, w, h and score, as records hold it."""
        return {**dict(zip("xywh", self.box, strict=True)), "score": self.score}


def cleaned(found: Map, body: Mask) -> Map:
    """The map without single pixels, and 0 outside the body and at the border."""
    smooth = median_filter(found, MEDIAN)
    margin = max(1, round(BORDER * len(found)))
    inside = np.zeros_like(body)
    inside[margin:-margin, margin:-margin] = body[margin:-margin, margin:-margin]
    return np.where(inside, smooth, 0).astype(np.float32)


def mask_over(found: Map, threshold: float) -> Mask:
    """Pixels above the threshold, in connected regions of at least `SMALLEST`."""
    parts, _ = label(found > threshold)
    areas = np.bincount(parts.ravel())
    large = areas >= SMALLEST * found.size
    large[0] = False
    mask: Mask = large[parts]
    return mask


def regions(found: Map, mask: Mask) -> list[Region]:
    """The mask's connected parts, the most unusual first."""
    parts, _ = label(mask)
    listed = []
    for number, place in enumerate(find_objects(parts), 1):
        rows, columns = place
        score = float(found[place][parts[place] == number].max())
        box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        listed.append(Region(tuple(map(float, box)), score))  # type: ignore[arg-type]
    return sorted(listed, key=lambda region: -region.score)


def picture_score(found: Map) -> float:
    """Mean of the map's largest hundredth."""
    count = max(1, round(TOP * found.size))
    return float(np.partition(found.ravel(), -count)[-count:].mean())


def lowest_unmarked(found: Map) -> float:
    """The lowest threshold at which `mask_over` would mark nothing, to within rounding."""
    low, high = 0.0, float(found.max())
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if mask_over(found, middle).any() else (low, middle)
    return high
