"""From maps to masks, boxes, scores and thresholds, on maps of any kind."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter, label

from gen.anomaly.regions import (
    BORDER,
    SMALLEST,
    Map,
    Mask,
    cleaned,
    lowest_unmarked,
    mask_over,
    picture_score,
    regions,
)

SIDE = 50  # the smallest region is 2 pixels, the border 1

levels = st.integers(0, 9).map(lambda tenth: tenth / 8)
maps = arrays(np.float32, (SIDE, SIDE), elements=levels, fill=st.just(0.0))
bodies = arrays(np.bool_, (SIDE, SIDE), fill=st.just(True))
seeds = st.integers(0, 2**31)
some = settings(deadline=None, max_examples=30)


def blobs(seed: int) -> Map:
    """A map (S, S) of hills of several heights, 0 in the valleys."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(SIDE, SIDE)), 2)
    return np.clip(noise / noise.std(), 0, None).astype(np.float32)


def smallest(mask: Mask) -> int:
    parts, count = label(mask)
    return int(min(np.bincount(parts.ravel())[1:])) if count else SIDE**2


@some
@given(maps, bodies)
def test_a_cleaned_map_is_0_outside_the_body_and_at_the_border(found: Map, body: Mask) -> None:
    kept = cleaned(found, body)
    assert kept.dtype == np.float32
    assert not kept[~body].any()
    margin = round(BORDER * SIDE)
    inner = np.zeros_like(body)
    inner[margin:-margin, margin:-margin] = True
    assert not kept[~inner].any()


@some
@given(st.integers(5, SIDE - 6), st.integers(5, SIDE - 6), seeds)
def test_a_bright_pixel_vanishes_and_a_bright_region_stays(y: int, x: int, seed: int) -> None:
    body = np.ones((SIDE, SIDE), bool)
    plain = blobs(seed) * 0 + 0.25
    single, region = plain.copy(), plain.copy()
    single[y, x] = 1
    region[y - 2 : y + 3, x - 2 : x + 3] = 1
    assert np.array_equal(cleaned(single, body), cleaned(plain, body))
    assert cleaned(region, body)[y, x] == 1


@some
@given(seeds, st.floats(0, 3))
def test_a_mask_keeps_all_regions_that_are_large_enough_and_no_other(
    seed: int, threshold: float
) -> None:
    found = blobs(seed)
    mask = mask_over(found, threshold)
    assert smallest(mask) >= SMALLEST * SIDE**2
    left_out = (found > threshold) & ~mask
    parts, count = label(left_out)
    assert not mask[found <= threshold].any()
    assert all((parts == number).sum() < SMALLEST * SIDE**2 for number in range(1, count + 1))


@some
@given(seeds, st.floats(0, 3))
def test_boxes_hold_exactly_the_mask_and_the_most_unusual_comes_first(
    seed: int, threshold: float
) -> None:
    found = blobs(seed)
    mask = mask_over(found, threshold)
    listed = regions(found, mask)
    assert len(listed) == label(mask)[1]
    boxed = np.zeros_like(mask)
    for region in listed:
        x, y, w, h = map(int, region.box)
        inside = mask[y : y + h, x : x + w]
        boxed[y : y + h, x : x + w] = True
        # no side of a box is empty
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
        assert region.score <= found[y : y + h, x : x + w].max()
    assert not mask[~boxed].any()
    scores = [region.score for region in listed]
    assert scores == sorted(scores, reverse=True)
    assert not listed or scores[0] == found[mask].max()


def test_a_box_is_x_y_w_h() -> None:
    found = np.zeros((SIDE, SIDE), np.float32)
    found[5:8, 20:40] = 0.5
    found[6, 30] = 0.75
    (region,) = regions(found, mask_over(found, 0.25))
    assert region.box == (20, 5, 20, 3)
    assert region.score == 0.75


@some
@given(maps, maps)
def test_more_anywhere_is_no_lower_score(found: Map, more: Map) -> None:
    assert picture_score(found + more) >= picture_score(found)


def test_a_score_is_the_mean_of_the_largest_hundredth() -> None:
    found = np.zeros((SIDE, SIDE), np.float32)
    found[3, :25] = np.arange(1, 26)
    assert picture_score(found) == 13
    found[4, :40] = 0.5
    assert picture_score(found) == 13


@some
@given(seeds)
def test_at_the_lowest_threshold_nothing_is_marked_and_just_below_something(seed: int) -> None:
    found = blobs(seed)
    lowest = lowest_unmarked(found)
    assert not mask_over(found, lowest).any()
    assert mask_over(found, lowest - 1e-5 * float(found.max())).any()


def test_a_high_pixel_does_not_raise_the_lowest_threshold() -> None:
    found = np.zeros((SIDE, SIDE), np.float32)
    found[20:24, 20:24] = 0.5
    found[40, 40] = 9  # smaller than any region
    assert lowest_unmarked(found) == pytest.approx(0.5, abs=1e-4)
    assert lowest_unmarked(np.zeros((SIDE, SIDE), np.float32)) == 0
