"""Pointing at boxes and touching them, on maps of one bright spot."""

import numpy as np
import pytest

from gen.metrics.anomaly_boxes import (
    box_mask,
    boxes_touched,
    hits_elsewhere,
    points_at_box,
    without_specks,
)
from gen.metrics.weighted import Floats

BOXES = np.array([[2, 2, 6, 6], [8, 8, 12, 14.0]])


def spots(*places: tuple[int, int]) -> Floats:
    """A map (1, 16, 16) for each place, 1 there, 0.5 right of it and 0 elsewhere."""
    maps = np.zeros((len(places), 16, 16))
    for each, (row, column) in zip(maps, places, strict=True):
        each[row, column : column + 2] = 1, 0.5
    return maps


def test_a_box_holds_the_pixels_whose_centres_it_holds() -> None:
    (mask,) = box_mask(np.array([[1.4, 2.6, 3.5, 4.5]]), 6)
    assert np.argwhere(mask).tolist() == [[1, 3], [2, 3]]


def test_a_map_points_where_its_maximum_is() -> None:
    maps = spots((3, 3), (9, 13), (2, 6), (7, 7))
    assert points_at_box(maps, [BOXES] * 4).tolist() == [1, 1, 0, 0]
    assert points_at_box(maps, [BOXES[:1]] * 4).tolist() == [1, 0, 0, 0]


def test_a_component_touches_what_it_reaches_into_unless_it_is_a_speck() -> None:
    maps = spots((3, 1), (9, 13), (7, 7))  # the first begins left of the box
    assert boxes_touched(maps, [BOXES] * 3, 0.4).tolist() == [1, 1, 0]
    assert boxes_touched(maps, [BOXES] * 3, 0.6).tolist() == [0, 1, 0]
    assert boxes_touched(maps, [BOXES] * 3, 0.4, min_area=2).tolist() == [1, 1, 0]
    assert boxes_touched(maps, [BOXES] * 3, 0.4, min_area=3).tolist() == [0, 0, 0]


def test_specks_go_and_what_touches_by_a_corner_stays() -> None:
    above = np.zeros((5, 5), bool)
    above[0, 0] = above[2, 2] = above[3, 3] = True
    assert np.argwhere(without_specks(above, 2)).tolist() == [[2, 2], [3, 3]]
    assert not without_specks(np.zeros((5, 5), bool), 1).any()


def test_a_map_that_is_the_same_for_all_hits_no_more_than_by_habit() -> None:
    same = spots((3, 3), (3, 3), (3, 3), (0, 0))
    pointed, touched = hits_elsewhere(same, [BOXES, BOXES[1:]], 0.6)
    assert pointed.tolist() == touched.tolist() == pytest.approx([0.75, 0])
