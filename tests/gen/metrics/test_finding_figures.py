"""Figures of findings in draws of images, against brute force, scikit-learn and counting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from gen.data.captions import Labels
from gen.metrics.finding_figures import (
    ACCURACY,
    AUROC,
    PRECISION,
    Judged,
    arm_figures,
    average_precision,
    best_threshold,
    compared,
    people_of,
    thresholds_of,
    within_populations,
)

CLASSES = ("Normal", "Effusion")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_average_precision_counts_an_image_as_often_as_it_is_drawn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=20).round(1)  # some are equal
    shown = np.append(rng.random(18) < 0.4, [True, False])
    weights = rng.integers(0, 3, (3, 20)).astype(float)
    weights[:, -2] = 1
    expected = [average_precision_score(shown, scores, sample_weight=each) for each in weights]
    np.testing.assert_allclose(average_precision(scores, shown, weights), expected)


def test_a_class_that_only_age_tells_is_not_told_at_all() -> None:
    # of children half have it and all score high, of adults one in ten and all score low
    populations = np.repeat([1, 0], 20)
    stated = np.concatenate([np.arange(20) % 2, np.arange(20) % 10 == 0]).astype(float)
    scores = populations.astype(float)
    everyone, ones = np.ones(40, bool), np.ones((1, 40))
    assert roc_auc_score(stated, scores) > 0.7
    found = within_populations(AUROC, scores, stated, populations, everyone, ones)
    assert found == pytest.approx([0.5])


def test_populations_weigh_by_their_pairs_and_what_is_unknown_does_not_count() -> None:
    rng = np.random.default_rng(0)
    populations = np.repeat([0, 1], [30, 20])
    stated = (rng.random(50) < 0.4).astype(float)
    scores = rng.normal(size=50) + stated
    stated[::7] = np.nan
    weights = np.ones((1, 50))
    for figure, size in ((AUROC, lambda s: s.sum() * (1 - s).sum()), (PRECISION, np.sum)):
        score = {AUROC: roc_auc_score, PRECISION: average_precision_score}[figure]
        parts, sizes = [], []
        for population in (0, 1):
            rows = (populations == population) & ~np.isnan(stated)
            parts.append(score(stated[rows], scores[rows]))
            sizes.append(size(stated[rows]))
        found = within_populations(figure, scores, stated, populations, np.ones(50, bool), weights)
        assert found == pytest.approx([np.average(parts, weights=sizes)])
    nobody = within_populations(
        AUROC, scores, np.zeros(50), populations, np.ones(50, bool), weights
    )
    assert np.isnan(nobody).all()


def test_accuracy_is_the_mean_of_sensitivity_and_specificity() -> None:
    stated = np.array([1.0, 1, 1, 1, 0, 0])
    said = np.array([1.0, 1, 1, 0, 1, 0])
    weights = np.array([[1.0] * 6, [1, 1, 1, 3, 1, 1]])
    found = within_populations(ACCURACY, said, stated, np.zeros(6, int), np.ones(6, bool), weights)
    assert found.tolist() == pytest.approx([(3 / 4 + 1 / 2) / 2, (3 / 6 + 1 / 2) / 2])


def test_a_threshold_lies_where_both_kinds_are_told_best() -> None:
    scores = np.array([0.1, 0.2, 0.4, 0.6, 0.7, 0.8])
    shown = np.array([False, False, True, False, True, True])
    assert 0.2 < best_threshold(scores, shown) <= 0.4 or 0.6 < best_threshold(scores, shown) <= 0.7
    assert best_threshold(scores, np.zeros(6, bool)) == 0.5
    stated = np.stack([shown, np.full(6, np.nan)], 1)
    found = thresholds_of(np.stack([scores, scores], 1)[None], stated)
    assert found.tolist() == [[best_threshold(scores, shown), 0.5]]


def judged(count: int = 80) -> Judged:
    """Half are ill; women and the old come in turn, two images a patient."""
    labels = [
        Labels((CLASSES[i // 2 % 2],), "PA", (30.0, 70.0)[i // 8 % 2], "MF"[i // 4 % 2])
        for i in range(count)
    ]
    stated = np.array([[each.normal, not each.normal] for each in labels], float)
    return Judged(labels, [f"p{i // 2}" for i in range(count)], stated, CLASSES)


def test_the_ill_who_are_missed_are_counted_by_group_and_compared_in_a_fixed_order() -> None:
    images = judged()
    ill = images.stated[:, 0] == 0
    female = np.array([each.sex == "F" for each in images.labels])
    # one woman in five of the ill is called normal, no man
    normal = images.stated[:, 0].copy()
    women = np.flatnonzero(ill & female)
    normal[women[: len(women) // 5]] = 1
    probabilities = np.stack([normal, 1 - normal], 1)[None].repeat(2, 0)
    draws = images.draw(2)
    found = arm_figures(probabilities, np.full((2, 2), 0.5), images, draws)
    assert found["groups", "female", "missed"][0] == pytest.approx(0.2)
    assert found["groups", "male", "missed"][0] == 0
    assert found["fairness", "sex", "gap"][0] == pytest.approx(0.2)
    swapped = np.where(female, 0, 0.3)  # now some men are
    mirrored = arm_figures(
        np.stack([swapped * ill + (1 - ill), 1 - normal], 1)[None].repeat(2, 0),
        np.full((2, 2), 0.2), images, draws,
    )  # fmt: skip
    assert mirrored["fairness", "sex", "gap"][0] == -1
    gap = compared(mirrored, found)
    assert gap["fairness", "sex", "gap"][0] == pytest.approx(-1.2)
    assert gap["fairness", "sex", "size"][0] == pytest.approx(0.8)
    np.testing.assert_allclose(
        gap["macro", "auroc"], mirrored["macro", "auroc"] - found["macro", "auroc"]
    )


def test_what_is_drawn_alike_is_compared_alike() -> None:
    images, rng = judged(), np.random.default_rng(1)
    truth = images.stated[None].repeat(3, 0)
    worse = truth + rng.normal(0, 1.5, truth.shape)
    thresholds = np.full((3, 2), 0.5)
    draws = images.draw(3)
    one = arm_figures(truth + rng.normal(0, 0.1, truth.shape), thresholds, images, draws)
    other = arm_figures(worse, thresholds, images, draws)
    assert set(compared(one, one)) == set(one)
    assert all((np.nan_to_num(each) == 0).all() for each in compared(one, one).values())
    assert np.quantile(compared(one, other)["macro", "auroc"][1:], 0.025) > 0


def test_groups_are_of_people_who_are_known() -> None:
    assert people_of(Labels(("Normal",), None, 70.0, "F")) == {"female", "adult", "over 60"}
    assert people_of(Labels(("Normal",), None, 2.0, None, True)) == {"child"}
    assert people_of(Labels(("Normal",), None, None, "M")) == {"male", "adult"}
