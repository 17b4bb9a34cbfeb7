"""A classifier of tiles: what it is shown, what it learns, and that a seed means one classifier."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gen.training.tile_classifier import (
    TileClassifierConfig,
    TrainingTiles,
    class_probabilities,
    jitter,
    train_tile_classifier,
)

SMALL = TileClassifierConfig(
    image_size=16, widths=(8, 16), num_steps=60, batch_size=16, num_warmup_steps=5,
    learning_rate=0.01,
)  # fmt: skip


def stripes(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Grey noise (count, 1, 3, 16, 16) with wide stripes or narrow ones, and which."""
    rng = np.random.default_rng(seed)
    labels = torch.arange(count) % 2
    waves = np.sin(np.arange(16) * np.where(labels, 2.5, 0.8)[:, None])
    pixels = 128 + 60 * waves[:, None, None, None] + rng.normal(0, 20, (count, 1, 3, 16, 16))
    return torch.from_numpy(pixels).clamp(0, 255).to(torch.uint8), labels


def test_it_learns_what_tells_the_classes_even_turned_and_jittered() -> None:
    pictures, labels = stripes(20)
    unseen, truth = stripes(40, seed=1)
    for augmented in (False, True):
        tiles = TrainingTiles(pictures, labels, augmented)
        found = class_probabilities(train_tile_classifier(tiles, 2, SMALL, 0), unseen[:, 0])
        np.testing.assert_allclose(found.sum(1), 1)
        assert (found.argmax(1) == truth.numpy()).mean() > 0.9
    # only one that was shown turned tiles knows turned ones
    turned = class_probabilities(
        train_tile_classifier(TrainingTiles(pictures, labels, True), 2, SMALL, 0),
        unseen[:, 0].rot90(1, (-2, -1)),
    )
    assert (turned.argmax(1) == truth.numpy()).mean() > 0.9


def test_a_seed_means_one_classifier_and_leaves_others_randomness_alone() -> None:
    tiles = TrainingTiles(*stripes(8), True)
    few = SMALL.model_copy(update={"num_steps": 2})
    state = torch.random.get_rng_state()
    told: list[int] = []
    first = class_probabilities(
        train_tile_classifier(tiles, 2, few, 3, report=told.append), tiles.pictures[:, 0]
    )
    assert told == [1, 2]
    assert torch.equal(state, torch.random.get_rng_state())
    torch.rand(7)
    again, other = (
        class_probabilities(train_tile_classifier(tiles, 2, few, seed), tiles.pictures[:, 0])
        for seed in (3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_all_tiles_count_alike_and_arms_are_shown_the_same_tiles_in_order() -> None:
    # picture v of tile t has the level 10 t + v
    levels = 10 * torch.arange(5)[:, None] + torch.arange(3)
    pictures = levels[..., None, None, None].expand(5, 3, 3, 4, 4).to(torch.uint8)
    labels = torch.arange(5)
    seen = {}
    for name, shown in (("alone", pictures[:, :1]), ("varied", pictures)):
        tiles = TrainingTiles(shown, labels, augmented=False)
        images, drawn = tiles.draw(3000, 0.0, torch.Generator().manual_seed(0))
        found = ((images[:, 0, 0, 0] + 1) * 127.5).round().long()
        assert torch.equal(found // 10, drawn)
        seen[name] = found
    assert torch.equal(seen["alone"] // 10, seen["varied"] // 10)
    assert set((seen["alone"] % 10).tolist()) == {0}
    shares = (seen["varied"] % 10).bincount() / 3000
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.03, rtol=0)


def test_what_is_augmented_is_the_same_tile_in_another_position() -> None:
    pictures = torch.arange(48, dtype=torch.uint8).reshape(1, 1, 3, 4, 4)
    tiles = TrainingTiles(pictures, torch.zeros(1, dtype=torch.int64), augmented=True)
    images, _ = tiles.draw(200, 0.0, torch.Generator().manual_seed(0))
    levels = ((images + 1) * 127.5).round().flatten(1)
    assert len({tuple(each.tolist()) for each in levels}) == 8
    for each in levels:
        assert sorted(each.tolist()) == list(range(48))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), largest=st.floats(0, 0.5))
def test_jitter_of_grey_changes_it_by_no_more_than_it_may(seed: int, largest: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(4, 1, 5, 5, generator=generator).expand(-1, 3, -1, -1) * 0.4
    found = jitter(images, largest, generator)
    assert found.min() >= 0
    assert found.max() <= 1
    # saturation leaves grey as it is; contrast turns about the mean, brightness scales all
    mean = images.mean((1, 2, 3), keepdim=True)
    bound = (mean + (images - mean).abs() * (1 + largest)) * (1 + largest)
    assert (found <= bound + 1e-5).all()
    if largest == 0:
        torch.testing.assert_close(found, images)


def test_jitter_differs_from_picture_to_picture_and_changes_hue() -> None:
    images = torch.full((2, 3, 2, 2), 0.5)
    found = jitter(images, 0.3, torch.Generator().manual_seed(0))
    assert not torch.allclose(found[0], found[1])
    assert found[0].std(0).max() > 0.01
