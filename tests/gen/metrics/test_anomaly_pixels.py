"""AP, AUPRO and Dice in closed form, against scikit-learn, and under increasing functions."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from gen.errors import InvalidInput
from gen.metrics.anomaly_pixels import (
    NUM_LEVELS,
    PixelCounts,
    aupro,
    average_precision,
    best_dice,
    count_pixels,
    dice_at,
)
from gen.metrics.weighted import Figure, Floats

FIGURES = (average_precision, aupro, best_dice)


def lesions(count: int, side: int = 16) -> NDArray[np.bool_]:
    """Masks (count, side, side) of two lesions each, a small and a large one."""
    masks = np.zeros((count, side, side), bool)
    masks[:, 2:4, 2:4] = masks[:, 7:13, 7:12] = True
    return masks


def noise(count: int, side: int = 16, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).random((count, side, side))


def of_all(figure: Figure, count: int) -> float:
    (value,) = figure(np.ones((1, count)))
    return float(value)


@pytest.mark.parametrize("figure", FIGURES)
def test_a_perfect_map_scores_one(figure: Callable[[PixelCounts], Figure]) -> None:
    masks = lesions(3)
    for maps in (masks * 1.0, masks + 0.5 * noise(3)):
        assert of_all(figure(count_pixels(maps, masks)), 3) == pytest.approx(1)


def test_chance_has_the_prevalence_half_the_rate_and_the_dice_of_marking_everything() -> None:
    masks, maps = lesions(40, 64), noise(40, 64)
    counts = count_pixels(maps, masks)
    assert counts.prevalence == pytest.approx(masks.mean())
    assert of_all(average_precision(counts), 40) == pytest.approx(masks.mean(), rel=0.1)
    assert of_all(aupro(counts), 40) == pytest.approx(0.15, abs=0.02)
    everything = 2 * masks.mean() / (1 + masks.mean())
    assert of_all(best_dice(counts), 40) == pytest.approx(everything, rel=0.2)


@pytest.mark.parametrize("side", [16, 64])  # with every value a threshold, and with some
def test_ap_is_scikit_learns_and_so_is_aupro_of_one_lesion(side: int) -> None:
    masks = np.zeros((4, side, side), bool)
    masks[1, 3:9, 3:9] = True
    maps = noise(4, side) + 0.3 * masks
    counts = count_pixels(maps, masks)
    exact = len(np.unique(maps)) <= NUM_LEVELS
    assert exact == (side == 16)
    precision = average_precision_score(masks.ravel(), maps.ravel())
    tolerance = 1e-9 if exact else 2e-3
    assert of_all(average_precision(counts), 4) == pytest.approx(precision, abs=tolerance)
    # scikit-learn's partial area is rescaled so that chance is 1/2 (McClish 1989)
    scaled = roc_auc_score(masks.ravel(), maps.ravel(), max_fpr=0.3)
    area = 0.045 + (2 * scaled - 1) * (0.3 - 0.045)
    assert of_all(aupro(counts), 4) == pytest.approx(area / 0.3, abs=tolerance)


def test_an_image_drawn_twice_counts_twice() -> None:
    masks, maps = lesions(3), noise(3) + 0.2 * lesions(3)
    drawn = np.array([[2.0, 0, 1]])
    rows = [0, 0, 2]
    for figure in FIGURES:
        twice = of_all(figure(count_pixels(maps[rows], masks[rows])), 3)
        (weighted,) = figure(count_pixels(maps, masks))(drawn)
        assert weighted == pytest.approx(twice, abs=1e-6)
    (weighted,) = dice_at(maps, masks, 0.6)(drawn)
    assert weighted == pytest.approx(of_all(dice_at(maps[rows], masks[rows], 0.6), 3))


def test_each_lesion_counts_alike_in_aupro_and_by_its_pixels_in_ap() -> None:
    masks = lesions(1)
    small_only, large_only = np.zeros((2, 1, 16, 16))
    small_only[0, 2:4, 2:4] = large_only[0, 7:13, 7:12] = 1
    small, large = (count_pixels(each, masks) for each in (small_only, large_only))
    # one of two is found at once, and the other as fast as pixels around it
    assert of_all(aupro(small), 1) == pytest.approx(0.5 + 0.15 / 2)
    assert of_all(aupro(large), 1) == pytest.approx(of_all(aupro(small), 1))
    assert of_all(average_precision(small), 1) < of_all(average_precision(large), 1)


@settings(deadline=None)
@given(seed=st.integers(0, 999), side=st.sampled_from([16, 72]))
def test_an_increasing_function_of_the_map_changes_nothing(seed: int, side: int) -> None:
    masks = lesions(2, side)
    maps = np.round(noise(2, side, seed) + 0.3 * masks, 6)
    for figure in FIGURES:
        before, after = (
            of_all(figure(count_pixels(each, masks)), 2) for each in (maps, np.exp(3 * maps) - 1)
        )
        assert after == before


def test_dice_at_a_threshold_is_the_overlap_and_never_above_the_best() -> None:
    masks, maps = lesions(3), noise(3) + 0.4 * lesions(3)
    above = maps > 0.8
    expected = 2 * (above & masks).sum() / (above.sum() + masks.sum())
    assert of_all(dice_at(maps, masks, 0.8), 3) == pytest.approx(expected)
    assert of_all(dice_at(maps, masks, np.full(3, 0.8)), 3) == pytest.approx(expected)
    best = of_all(best_dice(count_pixels(maps, masks)), 3)
    assert all(of_all(dice_at(maps, masks, t), 3) <= best for t in np.linspace(0, 1.4, 30))


def test_the_rule_is_recorded_and_decides() -> None:
    covered = np.zeros((1, 4, 4))
    covered[0, 0, :2] = (0.3, 0.9)
    counts = {rule: count_pixels(noise(1, 4), covered, rule) for rule in ("any", "half")}
    assert {rule: each.rule for rule, each in counts.items()} == {"any": "any", "half": "half"}
    assert [each.prevalence for each in counts.values()] == [2 / 16, 1 / 16]


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(InvalidInput, match="both must be one"):
        count_pixels(noise(2), lesions(1))
    with pytest.raises(InvalidInput, match="lesions hold 0 of 256 pixels"):
        count_pixels(noise(1), np.zeros((1, 16, 16)))
