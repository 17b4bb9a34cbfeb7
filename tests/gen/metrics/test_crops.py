"""Crops of blocks, and intervals over blocks."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from gen.encoders.encoder import Encoder
from gen.errors import InvalidInput
from gen.metrics.crops import CROPS_A_BLOCK, crop_distance, crop_features
from gen.metrics.views import View


def colours(images: Tensor) -> Tensor:
    """An encoder that answers where a crop lies: channels of `places` are row and column."""
    return images.mean((2, 3)) + 0.01


ENCODER = Encoder("colours", 16, 16, colours, "cpu", 3)


def places(height: int, width: int) -> View:
    """A picture whose pixels say where they are."""

    def read(top: int, left: int, rows: int, columns: int) -> np.ndarray:
        assert 0 <= top <= top + rows <= height
        assert 0 <= left <= left + columns <= width
        y, x = np.mgrid[top : top + rows, left : left + columns]
        return np.stack([y, x, np.zeros_like(y)], -1).astype(np.uint8)

    return View("places", height, width, read)


def test_crops_lie_within_their_blocks_and_a_seed_means_the_same_ones() -> None:
    features = crop_features([places(100, 200)], ENCODER, 16, seed=1)
    assert features.shape == (3 * 6, CROPS_A_BLOCK, 3)
    assert np.allclose(np.linalg.norm(features, axis=-1), 1)
    rows = [round(100 * i / 3) for i in range(4)]
    columns = [round(200 * i / 6) for i in range(7)]
    blocks = [(y, x) for y in pairwise(rows) for x in pairwise(columns)]
    for ((top, bottom), (left, right)), crops in zip(blocks, features, strict=True):
        # the direction of (mean row, mean column) bounds where the crop may be
        ratios = (crops[:, 0] / crops[:, 1]).tolist()
        lowest = (top + 7.5 + 2.55) / (right - 8.5 + 2.55)
        highest = (bottom - 8.5 + 2.55) / (left + 7.5 + 2.55)
        assert all(lowest - 1e-6 <= ratio <= highest + 1e-6 for ratio in ratios)
    assert np.array_equal(features, crop_features([places(100, 200)], ENCODER, 16, seed=1))
    assert not np.array_equal(features, crop_features([places(100, 200)], ENCODER, 16, seed=2))


def test_crops_of_all_pictures_count() -> None:
    seen: list[tuple[int, int]] = []
    features = crop_features(
        [places(64, 64), places(64, 96)], ENCODER, 16, report=lambda *done: seen.append(done)
    )
    assert len(features) == 4 + 6
    assert seen[-1] == (10, 10)


def test_the_distance_of_shifted_crops_is_the_shift_squared() -> None:
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(2, 60, CROPS_A_BLOCK, 4))
    found = crop_distance(made + 3, real)
    assert found.size == 30
    assert found.distance.value == pytest.approx(4 * 9, rel=0.1)
    assert found.floor.value < 0.3


def test_crops_of_one_block_count_as_one_draw() -> None:
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(2, 40, 1, 1))
    alike = np.broadcast_to(effects, (2, 40, CROPS_A_BLOCK, 1))
    apart = rng.normal(size=(2, 40, CROPS_A_BLOCK, 1))
    widths = [
        (found := crop_distance(*sets)).distance.high - found.distance.low
        for sets in (alike, apart)
    ]
    # the mean of 20 draws varies more than that of 160
    assert widths[0] > 3 * widths[1]


def test_what_is_too_small_is_refused() -> None:
    with pytest.raises(InvalidInput, match="crop_size is 32, but places has 20 x 90"):
        crop_features([places(20, 90)], ENCODER, 32)
    with pytest.raises(InvalidInput, match="room for 2 blocks of 64"):
        crop_features([places(64, 128)], ENCODER, 32)


def test_crops_are_seen_as_the_encoder_wants_them() -> None:
    images: list[Tensor] = []

    def remember(batch: Tensor) -> Tensor:
        images.append(batch)
        return torch.ones(len(batch), 2)

    crop_features([places(128, 128)], Encoder("a", 8, 8, remember, "cpu", 3), 32)
    assert images[0].shape == (CROPS_A_BLOCK, 3, 8, 8)
    assert images[0].min() == pytest.approx(0, abs=1e-6)
    assert 0.1 < images[0].max() < 63 / 255
