"""Distances of the images of a prompt to its patient: all of them, in true grey levels."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch import Tensor

from gen.errors import InvalidInput
from gen.metrics.aligned import pair_similarity
from gen.metrics.reidentification import (
    PromptRisk,
    feature_distances,
    mean_risk,
    pixel_distances,
    prompt_risk,
    reidentify,
)


def textures(count: int, seed: int = 0) -> Tensor:
    """Smooth random pictures (count, 1, 64, 64) uint8 that have nothing in common."""
    noise = np.random.default_rng(seed).normal(size=(count, 1, 64, 64))
    smooth = gaussian_filter(noise, 1.3, axes=(-2, -1))
    return torch.from_numpy(128 + 40 * smooth / smooth.std()).clamp(0, 255).to(torch.uint8)


def grey(level: int) -> Tensor:
    return torch.full((1, 16, 16), level, dtype=torch.uint8)


def mean_level(images: Tensor) -> Tensor:
    return images.mean((2, 3))


def first_is_higher(images: Tensor, others: Tensor) -> Tensor:
    return (images.float() - others.float()).mean((1, 2, 3)) / 255


TEN = torch.stack([grey(level) for level in range(90, 0, -9)])


def test_ten_images_have_ten_distances_and_not_ten_times_the_last() -> None:
    real = grey(0)
    distances = pixel_distances(real, TEN)
    assert np.allclose(distances, np.arange(90, 0, -9) / 255)
    risk = prompt_risk(real, TEN, first_is_higher, mean_level)
    assert risk.min_pixel_distance == pytest.approx(9 / 255)
    assert risk.mean_pixel_distance == pytest.approx(49.5 / 255)
    assert risk.mean_feature_distance == pytest.approx(2 * 49.5 / 255, rel=1e-5)
    assert risk.min_feature_distance == pytest.approx(2 * 9 / 255, rel=1e-5)
    assert risk.mean_score == pytest.approx(49.5 / 255)
    assert risk.max_score == pytest.approx(90 / 255)
    # nor the first or the last, in whatever order the images come
    again = prompt_risk(real, TEN[[4, 9, 0, 3, 1, 2, 5, 6, 7, 8]], first_is_higher, mean_level)
    assert asdict(again) == pytest.approx(asdict(risk))


def test_grey_levels_do_not_wrap_round() -> None:
    assert pixel_distances(grey(0), grey(255)[None]) == [1]
    assert pixel_distances(grey(255), grey(0)[None]) == [1]


@settings(max_examples=50, deadline=None)
@given(first=st.integers(0, 255), second=st.integers(0, 255))
def test_a_distance_is_the_same_both_ways(first: int, second: int) -> None:
    there = pixel_distances(grey(first), grey(second)[None])
    assert there == pixel_distances(grey(second), grey(first)[None])
    assert there == pytest.approx(abs(first - second) / 255)


def test_a_distance_does_not_grow_with_the_number_of_pixels_or_features() -> None:
    half = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    half[0, 0, 0] = 255
    for side in (1, 8):
        larger = half.repeat(1, 1, side, side)
        found = pixel_distances(torch.zeros_like(larger[0]), larger)
        assert found == pytest.approx(np.sqrt(1 / 2))
    assert feature_distances(np.zeros(4), np.array([[3.0, 3, 3, 3], [2, 0, 0, 0]])).tolist() == [
        3,
        1,
    ]


def test_every_prompt_is_compared_with_its_own_image() -> None:
    real = textures(3)
    counted: list[int] = []
    made = [
        torch.stack([each.flip(-1), other])
        for each, other in zip(real, textures(3, 1), strict=True)
    ]
    risks = reidentify(real, made, pair_similarity, mean_level, counted.append)
    assert counted == [1, 1, 1]
    for risk in risks:
        assert risk.max_score == pytest.approx(1, abs=1e-4)
        assert risk.mean_score < 0.75
    with pytest.raises(ValueError, match="shorter"):
        reidentify(real, made[:2], pair_similarity, mean_level)


@pytest.mark.parametrize("made", [TEN[:0], TEN[..., :8], grey(3)])
def test_images_must_be_comparable(made: Tensor) -> None:
    with pytest.raises(InvalidInput, match="resize them alike"):
        prompt_risk(grey(0), made, first_is_higher, mean_level)


def test_the_mean_risk_is_over_prompts() -> None:
    risks = [PromptRisk(*(step + place for place in range(6))) for step in range(5)]
    mean = mean_risk(risks, list("abcde"))
    assert [each.value for each in mean.values()] == [2, 3, 4, 5, 6, 7]
    assert list(mean) == list(asdict(risks[0]))
    assert mean["max_score"].low < 3 < mean["max_score"].high
