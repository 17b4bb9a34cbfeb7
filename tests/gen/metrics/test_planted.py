"""Planted copies are what they say, and are counted when they are found."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from gen.errors import InvalidInput
from gen.metrics.calibration import Calibration
from gen.metrics.copies import index_training
from gen.metrics.features import features_of
from gen.metrics.intervals import Estimate
from gen.metrics.planted import (
    ALTERATIONS,
    crop,
    flip,
    jpeg,
    noise,
    planted_recall,
    tone,
    translate,
)


def textures(count: int, seed: int = 0) -> Tensor:
    """Smooth random pictures (count, 1, 64, 64) uint8 that have nothing in common."""
    noise = np.random.default_rng(seed).normal(size=(count, 1, 64, 64))
    smooth = gaussian_filter(noise, 1.3, axes=(-2, -1))
    return torch.from_numpy(128 + 40 * smooth / smooth.std()).clamp(0, 255).to(torch.uint8)


def coarse(images: Tensor) -> Tensor:
    """An encoder that knows left from right."""
    return F.adaptive_avg_pool2d(images, 8).flatten(1)


IMAGES = textures(40)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def calibrated(threshold: float) -> Calibration:
    return Calibration(Estimate(threshold, threshold, threshold), Estimate(0, 0, 0), 0.01, 100)


@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_alteration_follows_its_seed_and_keeps_the_form(name: str) -> None:
    first, again, other = (ALTERATIONS[name](IMAGES, rng(seed)) for seed in (0, 0, 1))
    assert (first.shape, first.dtype) == (IMAGES.shape, torch.uint8)
    assert torch.equal(first, again)
    assert not torch.equal(first, IMAGES)
    assert name == "flip" or not torch.equal(first, other)


def test_a_translation_moves_by_up_to_a_twentieth_and_each_image_by_itself() -> None:
    moved = translate(IMAGES, rng())
    shifts = set()
    for image, original in zip(moved[:, 0], IMAGES[:, 0], strict=True):
        inner = original[6:-6, 6:-6]
        found = [
            (y, x)
            for y in range(-6, 7)
            for x in range(-6, 7)
            if torch.equal(image[6 + y : 58 + y, 6 + x : 58 + x], inner)
        ]
        assert len(found) == 1
        shifts.update(found)
    assert len(shifts) > 10
    assert max(max(map(abs, shift)) for shift in shifts) == 3  # a twentieth of 64


def test_a_crop_enlarges_nine_tenths() -> None:
    ramp = torch.arange(128, dtype=torch.uint8).expand(30, 1, 128, 128)
    cut = crop(ramp, rng()).float()
    spans = cut[:, 0, 5, -1] - cut[:, 0, 5, 0]
    assert spans.sub(0.9 * 127).abs().max() < 2
    assert cut[:, 0, 5, 0].unique().numel() > 5


def test_tone_changes_grey_levels_alike_everywhere() -> None:
    for image, original in zip(tone(IMAGES, rng())[:, 0], IMAGES[:, 0], strict=True):
        levels = [image[original == level].unique() for level in original.unique()]
        assert all(len(level) == 1 for level in levels)
        assert torch.cat(levels).int().diff().min() >= 0


def test_noise_has_its_deviation_and_flips_are_exact() -> None:
    grey = torch.full((4, 1, 64, 64), 128, dtype=torch.uint8)
    assert noise(grey, rng()).float().std().item() == pytest.approx(8, rel=0.05)
    assert torch.equal(flip(IMAGES, rng()).flip(-1), IMAGES)
    # lossy, but not by much
    assert 0 < (jpeg(IMAGES, rng()).float() - IMAGES.float()).abs().mean() < 8


def test_planted_copies_are_found_unless_the_threshold_cannot_be_passed() -> None:
    index = index_training(IMAGES, features_of(IMAGES, coarse), [str(i) for i in range(40)])
    counted: list[int] = []
    found = planted_recall(
        IMAGES[8:16], range(8, 16), index, calibrated(0.5), coarse, report=counted.append
    )
    assert set(found) == set(ALTERATIONS)
    for name, recall in found.items():
        if name != "everything":
            assert (recall.flagged.value, recall.of.value) == (1, 1), name
        assert recall.flagged.low < 1
    assert sum(counted) == 8 * len(ALTERATIONS)
    missed = planted_recall(IMAGES[:2], range(2), index, calibrated(1.0), coarse)
    assert {each.flagged.value for each in missed.values()} == {0}


def test_each_planted_copy_is_of_a_row_that_was_indexed() -> None:
    index = index_training(IMAGES, features_of(IMAGES, coarse), [str(i) for i in range(40)])
    with pytest.raises(InvalidInput, match="3 images and 2 rows"):
        planted_recall(IMAGES[:3], range(2), index, calibrated(0.5), coarse)
    with pytest.raises(InvalidInput, match="0 images"):
        planted_recall(IMAGES[:0], range(0), index, calibrated(0.5), coarse)
