"""Whether anomaly maps point at boxes, where nobody drew an outline.

A box is (top, left, bottom, right) in pixels of the map; a pixel lies in it if its centre does.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from gen.metrics.anomaly import Maps
from gen.metrics.weighted import Floats

Boxes = NDArray[np.floating]
"""(B, 4), those of one image."""


def box_mask(boxes: Boxes, side: int) -> NDArray[np.bool_]:
    """(B, side, side), True in each box."""
    centres = np.arange(side) + 0.5
    top, left, bottom, right = boxes.T[..., None]
    down = (centres >= top) & (centres < bottom)
    across = (centres >= left) & (centres < right)
    return down[:, :, None] & across[:, None, :]


def points_at_box(maps: Maps, boxes: Sequence[Boxes]) -> Floats:
    """1 for each map whose maximum lies in a box of its image, else 0, (N,).

    The pointing game of Zhang et al. 2018 (Top-down neural attention, section 4.2), without its
    margin.
    """
    side = maps.shape[-1]
    peaks = maps.reshape(len(maps), -1).argmax(1)
    hits = [box_mask(each, side).any(0).flat[peak] for each, peak in zip(boxes, peaks, strict=True)]
    return np.array(hits, np.float64)


def boxes_touched(
    maps: Maps, boxes: Sequence[Boxes], threshold: float, min_area: int = 1
) -> Floats:
    """How many boxes of each image (N,) a component of its map above the threshold reaches into.

    Components of fewer than `min_area` pixels are left out.
    """
    touched = []
    for above, each in zip(maps > threshold, boxes, strict=True):
        kept = without_specks(above, min_area)
        touched.append((box_mask(each, len(above)) & kept).any((1, 2)).sum())
    return np.array(touched, np.float64)


def without_specks(above: NDArray[np.bool_], min_area: int) -> NDArray[np.bool_]:
    """A mask (S, S) without its connected components of fewer than `min_area` pixels."""
    parts, _ = label(above, np.ones((3, 3)))
    large = np.bincount(parts.ravel()) >= min_area
    large[0] = False
    return large[parts]


def hits_elsewhere(
    healthy_maps: Maps, boxes: Sequence[Boxes], threshold: float, min_area: int = 1
) -> tuple[Floats, Floats]:
    """What `points_at_box` and `boxes_touched` are by habit: of maps (M, S, S) of healthy images.

    The boxes of each image (N,) are laid on every healthy map, and what is found is averaged. A map
    that is high in the same place for everybody has no more hits than this.
    """
    count = len(healthy_maps)
    pointed, touched = [], []
    for each in boxes:
        repeated = [each] * count
        pointed.append(points_at_box(healthy_maps, repeated).mean())
        touched.append(boxes_touched(healthy_maps, repeated, threshold, min_area).mean())
    return np.array(pointed), np.array(touched)
