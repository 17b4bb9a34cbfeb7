"""Judges and the area under their curves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from gen.errors import InvalidInput
from gen.metrics.alignment import auroc, describe, train_judge


def clouds(distance: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two Gaussian clouds and which is which."""
    rng = np.random.default_rng(seed)
    labels = np.arange(120) % 2 == 0
    return rng.normal(size=(120, 5)) + distance * labels[:, None], labels


@pytest.mark.parametrize(("distance", "low", "high"), [(3.0, 0.99, 1.0), (0.0, 0.3, 0.7)])
def test_a_judge_knows_what_can_be_known(distance: float, low: float, high: float) -> None:
    judge = train_judge(*clouds(distance, 0), *clouds(distance, 1))
    assert low <= judge.real_auroc.value <= high
    other, labels = clouds(distance, 2)
    assert low <= auroc(judge.score(other), labels).value <= high


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    area = auroc(scores, labels)
    assert area.value == pytest.approx(3 / 4)
    assert area.low <= area.value <= area.high


def test_an_area_needs_both_classes() -> None:
    with pytest.raises(InvalidInput, match="0 negative"):
        auroc(np.ones(3), np.ones(3, bool))


def test_a_judge_sees_features_and_the_coarse_picture() -> None:
    images = torch.full((2, 1, 48, 48), 255, dtype=torch.uint8)
    seen = describe(images, lambda batch: batch.mean(dim=(2, 3)))
    assert seen.shape == (2, 1 + 24 * 24)
    assert np.allclose(seen, 1)


@settings(max_examples=25, deadline=None)
@given(
    positive=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    negative=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    seed=st.integers(0, 99),
)
def test_the_area_counts_ties_as_half_in_any_order(
    positive: list[int], negative: list[int], seed: int
) -> None:
    pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    scores = np.array([*positive, *negative], float)
    labels = np.arange(len(scores)) < len(positive)
    order = np.random.default_rng(seed).permutation(len(scores))
    area = auroc(scores[order], labels[order], num_resamples=10)
    assert area.value == pytest.approx(np.mean(pairs))
    assert area.value == pytest.approx(roc_auc_score(labels, scores))
    assert 0 <= area.low <= area.high <= 1


def test_the_interval_narrows_with_more_images_around_the_value() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for count in (40, 1000):
        labels = np.arange(count) % 2 == 0
        area = auroc(rng.normal(size=count) + labels, labels)
        assert area.low < area.value < area.high
        widths.append(area.high - area.low)
    assert widths[1] < widths[0] / 2


@pytest.mark.parametrize(("lacking", "count"), [("train", 120), ("test", 120), ("train", 0)])
def test_a_judge_needs_both_classes_of_real_images(lacking: str, count: int) -> None:
    described, labels = clouds(1, 0)
    sets = {"train": (described, labels), "test": (described, labels)}
    sets[lacking] = (described[:count], np.ones(count, bool))
    with pytest.raises(InvalidInput, match=f"{lacking}_labels hold {count} positive and 0 neg"):
        train_judge(*sets["train"], *sets["test"])
