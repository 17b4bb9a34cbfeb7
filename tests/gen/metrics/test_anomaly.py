"""Scores of images, thresholds and rules for masks, in closed form and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from gen.errors import InvalidInput
from gen.metrics.anomaly import auroc, binarise, healthy_threshold, image_scores, shrink


@given(seed=st.integers(0, 999), levels=st.integers(2, 50))
def test_the_auroc_is_scikit_learns_with_ties_and_weights_and_whatever_the_scale(
    seed: int, levels: int
) -> None:
    rng = np.random.default_rng(seed)
    diseased = rng.permutation(np.arange(30) < 12)
    scores = rng.integers(0, levels, 30).astype(float)
    weights = np.stack([np.ones(30), rng.integers(1, 4, 30)])
    expected = [roc_auc_score(diseased, scores, sample_weight=each) for each in weights]
    assert auroc(scores, diseased)(weights) == pytest.approx(expected)
    assert auroc(np.exp(scores / 9), diseased)(weights) == pytest.approx(expected)


def test_an_auroc_needs_images_of_both_kinds() -> None:
    with pytest.raises(InvalidInput, match="diseased holds 3 of 3 images"):
        auroc(np.arange(3.0), np.ones(3, bool))


def test_an_image_scores_by_its_highest_pixels() -> None:
    maps = np.zeros((2, 20, 20))
    maps[1, 3, :4] = (1, 2, 3, 6)
    assert image_scores(maps).tolist() == [0, 3]  # of four pixels, a hundredth of 400
    assert image_scores(maps, 1e-9).tolist() == [0, 6]


@given(seed=st.integers(0, 999), rate=st.floats(0.01, 0.99))
def test_no_more_healthy_pixels_than_asked_pass_the_threshold(seed: int, rate: float) -> None:
    maps = np.random.default_rng(seed).integers(0, 40, (3, 8, 8)).astype(float)
    threshold = healthy_threshold(maps, rate)
    assert (maps > threshold).mean() <= rate
    assert (maps >= threshold).mean() > rate - 1e-12  # and a lower one would let more pass


def test_a_threshold_needs_healthy_maps_and_a_rate() -> None:
    for maps, rate in ((np.zeros((0, 2, 2)), 0.05), (np.zeros((1, 2, 2)), 0.0)):
        with pytest.raises(InvalidInput, match="a threshold needs maps"):
            healthy_threshold(maps, rate)


def test_the_rule_says_which_shrunken_pixels_belong_to_a_lesion() -> None:
    mask = np.zeros((1, 4, 4), bool)
    mask[0, :2, :2] = True  # all of one block
    mask[0, 0, 2] = True  # a fourth
    mask[0, 2:, 0] = True  # a half
    covered = shrink(mask, 2)
    assert covered[0].tolist() == [[1, 0.25], [0.5, 0]]
    assert binarise(covered, "half")[0].tolist() == [[True, False], [False, False]]
    assert binarise(covered, "any")[0].tolist() == [[True, True], [True, False]]
    with pytest.raises(InvalidInput, match="rule is 'most'"):
        binarise(covered, "most")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="side is 3"):
        shrink(mask, 3)
