"""Diversity of groups whose diversity is known."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from gen.errors import InvalidInput
from gen.metrics.diversity import (
    SCALE_WEIGHTS,
    choose_pairs,
    feature_spread,
    group_ms_ssim,
    ms_ssim,
    pair_mean,
    pairs_within,
    vendi_score,
)

SIDE = 176


def noise(count: int, low: int = 0, high: int = 256, seed: int = 0) -> Tensor:
    """White noise images (count, 1, SIDE, SIDE) uint8."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 1, SIDE, SIDE)
    return torch.randint(low, high, shape, dtype=torch.uint8, generator=generator)


def waves(*levels: float) -> Tensor:
    """The same smooth image at different contrasts, with a little noise of its own each."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    wave = torch.sin(x / 9) + torch.cos(y / 13)
    images = torch.stack([128 + 40 * level * wave for level in levels])[:, None]
    return (images + noise(len(levels), 0, 20).float() - 10).round().clamp(0, 255).to(torch.uint8)


def slow_ms_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Of images (S, S) in [0, 1], window by window as in the papers."""
    axis = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = np.outer(axis, axis) / axis.sum() ** 2
    result = 1.0
    for scale, weight in enumerate(SCALE_WEIGHTS):
        x, y = (sliding_window_view(each, (11, 11)) for each in (first, second))
        mean_x, mean_y = (np.sum(each * window, axis=(2, 3)) for each in (x, y))
        apart_x, apart_y = x - mean_x[..., None, None], y - mean_y[..., None, None]
        variances, covariance = (
            np.sum(each * window, axis=(2, 3))
            for each in (apart_x**2 + apart_y**2, apart_x * apart_y)
        )
        similarity = (2 * covariance + 0.03**2) / (variances + 0.03**2)
        if scale == 4:
            similarity *= (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
        result *= max(similarity.mean(), 0) ** weight
        even = len(first) // 2 * 2
        first, second = (
            each[:even, :even].reshape(even // 2, 2, even // 2, 2).mean((1, 3))
            for each in (first, second)
        )
    return result


def test_an_image_is_the_same_as_itself() -> None:
    images = noise(3)
    assert ms_ssim(images, images) == pytest.approx(1, abs=1e-6)


def test_similarity_is_that_of_the_papers_window_by_window() -> None:
    images = waves(1, 0.5, -0.2, 0.9)
    found = ms_ssim(images[[0, 0, 0]], images[[1, 2, 3]])
    pixels = images[:, 0].double().numpy() / 255
    expected = [slow_ms_ssim(pixels[0], pixels[i]) for i in (1, 2, 3)]
    assert found == pytest.approx(expected, abs=1e-5)
    assert found[2] > found[0] > found[1]
    assert ms_ssim(images[[1, 2, 3]], images[[0, 0, 0]]) == pytest.approx(found, abs=1e-6)


def test_flat_images_differ_in_luminance_alone() -> None:
    dark, bright = (torch.full((1, 1, SIDE, SIDE), v, dtype=torch.uint8) for v in (51, 204))
    luminance = (2 * 0.2 * 0.8 + 0.01**2) / (0.2**2 + 0.8**2 + 0.01**2)
    assert ms_ssim(dark, bright) == pytest.approx(luminance ** SCALE_WEIGHTS[-1], rel=1e-4)


def test_an_inverted_image_counts_as_nothing_alike() -> None:
    images = noise(2)
    assert ms_ssim(images, 255 - images) == pytest.approx(0)


def test_batches_do_not_change_a_pair() -> None:
    images = noise(20, high=64)
    whole = ms_ssim(images, images.flip(0))
    assert ms_ssim(images[:1], images[-1:]) == pytest.approx(whole[:1], abs=1e-6)
    assert ms_ssim(images[18:19], images[1:2]) == pytest.approx(whole[18:19], abs=1e-6)


def test_a_group_is_measured_by_all_its_pairs_in_any_order() -> None:
    images = waves(1, 0.7, 0.4, 0.1)
    rows, others = np.triu_indices(4, 1)
    found = group_ms_ssim(images)
    assert found.value == pytest.approx(ms_ssim(images[rows], images[others]).mean(), abs=1e-6)
    assert found.low < found.value < found.high
    shuffled = group_ms_ssim(images[[2, 0, 3, 1]])
    assert vars(shuffled) == pytest.approx(vars(found), abs=1e-6)
    few = group_ms_ssim(images, max_pairs=3)
    assert vars(group_ms_ssim(images[[3, 1, 0, 2]], max_pairs=3)) == pytest.approx(
        vars(few), abs=1e-6
    )


def test_a_group_that_repeats_itself_is_more_alike_than_one_that_does_not() -> None:
    assert group_ms_ssim(waves(1, 1, 1, 1)).low > group_ms_ssim(noise(4)).high


@pytest.mark.parametrize(
    ("first", "second"), [((1, 1, 175, 175),) * 2, ((1, 1, 176, 176), (2, 1, 176, 176))]
)
def test_images_that_are_too_small_or_not_pairs_are_refused(first: tuple, second: tuple) -> None:
    with pytest.raises(InvalidInput, match="at least 176"):
        ms_ssim(torch.zeros(first, dtype=torch.uint8), torch.zeros(second, dtype=torch.uint8))


def test_groups_too_small_for_a_spread_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 4"):
        group_ms_ssim(noise(3))
    with pytest.raises(InvalidInput, match="at least 4"):
        feature_spread(np.ones((3, 2)))


@settings(deadline=None)
@given(count=st.integers(3, 60), max_pairs=st.integers(2, 200), seed=st.integers(0, 9))
def test_chosen_pairs_are_different_and_of_different_images(
    count: int, max_pairs: int, seed: int
) -> None:
    pairs = choose_pairs(count, max_pairs, seed)
    assert len({tuple(pair) for pair in pairs}) == min(max_pairs, count * (count - 1) // 2)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert pairs.min() >= 0
    assert pairs.max() < count


def test_every_pair_of_a_large_group_can_be_chosen() -> None:
    assert choose_pairs(100, 4950, 0).tolist() == [[i, j] for j in range(100) for i in range(j)]
    late = choose_pairs(100_000, 2000, 0)
    assert late.max() > 99_000
    assert np.median(late[:, 1]) == pytest.approx(100_000 / np.sqrt(2), rel=0.03)


def test_pairs_without_a_common_image_are_independent_witnesses() -> None:
    values = np.random.default_rng(0).normal(size=400)
    pairs = np.arange(800).reshape(400, 2)
    found = pair_mean(pairs, values)
    assert (found.high - found.low) / 3.92 == pytest.approx(values.std() / 20, rel=0.02)


def test_pairs_of_few_images_are_as_many_witnesses_as_there_are_images() -> None:
    images = np.random.default_rng(0).normal(size=100)
    pairs = choose_pairs(100, 5000, 0)
    found = pair_mean(pairs, images[pairs].sum(1))
    # the mean of x + y over pairs is twice the mean of x
    expected = 2 * images.std() / np.sqrt(100)
    assert found.value == pytest.approx(2 * images.mean())
    assert (found.high - found.low) / 3.92 == pytest.approx(expected, rel=0.04)


def test_orthogonal_features_lie_at_known_distances() -> None:
    found = feature_spread(3 * np.eye(6))
    assert vars(found.cosine) == pytest.approx({"value": 1, "low": 1, "high": 1})
    assert found.euclidean.value == pytest.approx(3 * np.sqrt(2))


def test_distances_are_means_over_pairs() -> None:
    line = np.array([1.0, 2.0, 4.0, 8.0])[:, None] * [0.6, 0.8]
    found = feature_spread(line)
    assert found.euclidean.value == pytest.approx((1 + 3 + 7 + 2 + 6 + 4) / 6)
    assert found.cosine.value == pytest.approx(0, abs=1e-12)
    opposed = feature_spread(np.concatenate([line, -line]))
    assert opposed.cosine.value == pytest.approx(2 * 16 / 28)


def test_gaussian_features_lie_as_far_apart_as_their_deviation_says() -> None:
    features = np.random.default_rng(0).normal(5, 2, size=(4000, 3))
    found = feature_spread(features)
    expected = 2 * np.sqrt(2) * np.sqrt(8 / np.pi)  # the mean of a chi with three degrees
    assert found.euclidean.low < expected < found.euclidean.high
    assert found.euclidean.value == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("columns", [4, 30])
def test_the_vendi_score_counts_what_is_different(columns: int) -> None:
    axes = np.eye(columns)[:4]
    assert vendi_score(np.repeat(axes[:1], 9, axis=0)) == pytest.approx(1)
    assert vendi_score(axes * [[1], [2], [3], [4]]) == pytest.approx(4)
    assert vendi_score(np.repeat(axes[:2], 5, axis=0)) == pytest.approx(2)
    uneven = np.repeat(axes[:2], [9, 1], axis=0)
    assert vendi_score(uneven) == pytest.approx(np.exp(-0.9 * np.log(0.9) - 0.1 * np.log(0.1)))
    angle = np.array([[1, 0], [np.cos(1), np.sin(1)]])
    shares = np.array([1 + np.cos(1), 1 - np.cos(1)]) / 2
    assert vendi_score(angle) == pytest.approx(np.exp(-np.sum(shares * np.log(shares))))


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(4, 30), columns=st.integers(1, 30))
def test_features_in_any_order_are_as_diverse(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, columns))
    shuffled = rng.permutation(features)
    assert vendi_score(shuffled) == pytest.approx(vendi_score(features))
    assert vendi_score(features) * (1 + 1e-9) >= 1
    assert vendi_score(features) <= min(rows, columns) * (1 + 1e-9)
    before, after = (feature_spread(each, max_pairs=20) for each in (features, shuffled))
    for name in ("cosine", "euclidean"):
        assert vars(getattr(after, name)) == pytest.approx(vars(getattr(before, name)))


def test_features_without_a_direction_are_refused() -> None:
    with pytest.raises(InvalidInput, match="hold 2 that are zero"):
        vendi_score(np.array([[1.0, 0], [0, 0], [0, 0]]))
    with pytest.raises(InvalidInput, match="0 features"):
        vendi_score(np.zeros((0, 3)))


@given(
    names=st.lists(st.sampled_from("abcde"), min_size=1, max_size=20),
    max_pairs=st.integers(1, 30),
)
def test_pairs_within_share_a_name_and_take_turns(names: list[str], max_pairs: int) -> None:
    pairs = pairs_within(names, max_pairs)
    all_pairs = {(i, j) for j in range(len(names)) for i in range(j) if names[i] == names[j]}
    found = {(min(pair), max(pair)) for pair in pairs.tolist()}
    assert len(found) == len(pairs) == min(max_pairs, len(all_pairs))
    assert found <= all_pairs
    of_name = Counter(names[i] for i, _ in pairs)
    several = [name for name, count in Counter(names).items() if count > 1]
    taken = [of_name[name] for name in several]
    exhausted = [of_name[n] == names.count(n) * (names.count(n) - 1) // 2 for n in several]
    for count, done in zip(taken, exhausted, strict=True):
        assert done or count >= max(taken) - 1
