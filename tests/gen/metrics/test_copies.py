"""Copies are found by whichever look-up sees them, and named."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from gen.errors import InvalidInput
from gen.metrics import copies as module
from gen.metrics.copies import TrainingIndex, describe_both_ways, index_training, match
from gen.metrics.features import features_of


def textures(count: int, seed: int = 0) -> Tensor:
    """Smooth random pictures (count, 1, 64, 64) uint8 that have nothing in common."""
    noise = np.random.default_rng(seed).normal(size=(count, 1, 64, 64))
    smooth = gaussian_filter(noise, 1.3, axes=(-2, -1))
    return torch.from_numpy(128 + 40 * smooth / smooth.std()).clamp(0, 255).to(torch.uint8)


TRAIN = textures(60)
PATIENTS = [f"p{i}" for i in range(60)]


def coarse(images: Tensor) -> Tensor:
    """An encoder that knows left from right."""
    return F.adaptive_avg_pool2d(images, 8).flatten(1)


def blind(images: Tensor) -> Tensor:
    """An encoder that tells nothing."""
    return torch.ones(len(images), 3)


def index_by(encoder: Callable[[Tensor], Tensor]) -> TrainingIndex:
    return index_training(TRAIN, features_of(TRAIN, encoder), PATIENTS)


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few as of a large training set: the right one must be among the first."""
    monkeypatch.setattr(module, "BY_FEATURES", 2)
    monkeypatch.setattr(module, "BY_THUMBNAIL", 2)


@pytest.mark.parametrize("encoder", [coarse, blind])
@pytest.mark.parametrize("flipped", [False, True])
def test_a_copy_is_matched_to_its_image_even_if_the_encoder_is_blind(
    encoder: Callable[[Tensor], Tensor], flipped: bool
) -> None:
    rows = [7, 31, 59]
    copies = (TRAIN[rows].flip(-1) if flipped else TRAIN[rows]) // 2 + 40
    counted: list[int] = []
    found = match(describe_both_ways(copies, encoder), index_by(encoder), report=counted.append)
    assert found.rows.tolist() == rows
    assert found.scores.min() > 0.95
    assert sum(counted) == 3


def test_a_copy_that_thumbnails_do_not_see_is_found_by_features() -> None:
    index = index_by(coarse)
    lost = replace(index, thumbnails=torch.zeros_like(index.thumbnails))
    for copies in (TRAIN[20:40], TRAIN[20:40].flip(-1)):
        found = match(describe_both_ways(copies, coarse), lost)
        assert found.rows.tolist() == list(range(20, 40))


def test_a_crop_is_found_by_thumbnails_of_the_middle() -> None:
    cut = F.interpolate(TRAIN[:10, :, 3:61, 3:61].float(), (64, 64), mode="bilinear")
    found = match(describe_both_ways(cut.round().to(torch.uint8), blind), index_by(blind))
    assert found.rows.tolist() == list(range(10))


def test_other_images_score_low_whatever_batch_they_are_in() -> None:
    others, index = textures(5, seed=1), index_by(coarse)
    found = match(describe_both_ways(others, coarse), index)
    assert found.scores.max() < 0.7
    alone = match(describe_both_ways(others[3:4], coarse), index)
    assert alone.rows[0] == found.rows[3]
    assert alone.scores[0] == pytest.approx(found.scores[3], abs=1e-5)


def test_a_training_set_smaller_than_the_number_of_candidates_is_searched_whole() -> None:
    index = index_training(TRAIN[:1], features_of(TRAIN[:1], coarse), ["a"])
    assert match(describe_both_ways(TRAIN[:2], coarse), index).rows.tolist() == [0, 0]


def test_features_are_directions_from_the_mean_in_units_of_spread() -> None:
    index = index_by(coarse)
    features = features_of(TRAIN, coarse)
    expected = (features - features.mean(0)) / features.std(0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(index.features, expected, atol=1e-4)
    assert np.allclose(index.standardise(features), expected, atol=1e-4)


def test_every_training_image_has_features_and_a_patient() -> None:
    with pytest.raises(InvalidInput, match="60 training images, 60 rows of features and 59"):
        index_training(TRAIN, np.ones((60, 2)), PATIENTS[1:])
    with pytest.raises(InvalidInput, match="0 training images"):
        index_training(TRAIN[:0], np.ones((0, 2)), [])


def test_of_the_same_patient_nothing_is_a_match() -> None:
    index = replace(index_by(coarse), patients=tuple(f"p{i // 2}" for i in range(60)))
    described = describe_both_ways(TRAIN[:6], coarse)
    anyone, others = match(described, index), match(described, index, list(index.patients[:6]))
    assert anyone.rows.tolist() == list(range(6))
    assert all(row // 2 != i // 2 for i, row in enumerate(others.rows))
    assert (others.scores < anyone.scores).all()
    alone = index_training(TRAIN[:2], features_of(TRAIN[:2], coarse), ["p0", "p0"])
    nobody = match(describe_both_ways(TRAIN[:1], coarse), alone, ["p0"])
    assert (nobody.scores.tolist(), nobody.rows.tolist()) == ([-1], [-1])
