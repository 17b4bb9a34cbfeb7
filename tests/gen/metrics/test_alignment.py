"""Judges and the area under their curves."""

import numpy as np
import pytest
import torch

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
