"""Planted lesions: where they lie, what they leave alone and how much they change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, label

from gen.anomaly.planted import (
    CONTRAST,
    KINDS,
    MIN_AREA,
    MIN_CHANGE,
    Kind,
    Picture,
    body_mask,
    lung_places,
    plant,
    poisson,
)
from gen.errors import InvalidInput

SIDE = 64


def chest(seed: int = 0) -> Picture:
    """A bright torso in black air with two dark lungs, and structure in all of it."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    torso = np.hypot(y / 0.6, x / 0.45) < 1
    lungs = np.hypot(y / 0.3, (np.abs(x) - 0.18) / 0.13) < 1
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(SIDE, SIDE)), 1)
    inside = np.where(lungs, -0.4, 0.4) + 0.1 * noise / noise.std()
    return np.where(torso, inside, -1).clip(-1, 1).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**31))
def test_a_lesion_changes_its_mask_enough_and_nothing_else_and_lies_in_the_body(
    kind: Kind, seed: int
) -> None:
    picture = chest()
    planted = plant(kind, picture, chest(1), np.random.default_rng(seed))
    assert planted.picture.dtype == np.float32
    assert np.abs(planted.picture).max() <= 1
    assert np.array_equal(planted.picture[~planted.mask], picture[~planted.mask])
    change = (planted.picture - picture)[planted.mask]
    assert MIN_CHANGE <= np.abs(change).mean() <= CONTRAST[1] + 1e-6
    assert not (planted.mask & ~body_mask(picture)).any()
    assert planted.mask.mean() >= MIN_AREA
    _, count = label(planted.mask)
    assert count == 1
    if kind in ("brighter", "darker"):
        assert (change * (1 if kind == "brighter" else -1) >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_gives_one_lesion_and_another_gives_another(kind: Kind) -> None:
    first, again, other = (
        plant(kind, chest(), chest(1), np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    assert np.array_equal(first.picture, again.picture)
    assert np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.mask, other.mask)


def test_lesions_begin_in_the_lungs() -> None:
    picture = chest()
    rows, columns = lung_places(picture, body_mask(picture)).T
    assert (picture[rows, columns] < 0).mean() > 0.9


def test_the_body_has_no_holes_and_ends_before_its_rim() -> None:
    picture = chest()
    picture[SIDE // 2 - 3 : SIDE // 2 + 3, SIDE // 2 - 3 : SIDE // 2 + 3] = -1
    body = body_mask(picture)
    assert body[SIDE // 2, SIDE // 2]
    assert not (body & (np.abs(np.arange(SIDE) - SIDE / 2 + 0.5) > 0.45 * SIDE)).any()
    assert not body_mask(np.full((SIDE, SIDE), -1, np.float32)).any()


def test_a_poisson_patch_of_the_same_picture_in_the_same_place_is_no_change() -> None:
    picture, mask = chest(), np.zeros((SIDE, SIDE), bool)
    mask[20:30, 20:34] = True
    assert poisson(picture, picture, mask) == pytest.approx(picture, abs=1e-6)
    # gradients alone count, so brightness of the guide does not
    assert poisson(picture, picture + 0.5, mask) == pytest.approx(picture, abs=1e-6)
    # without gradients what is inside is the mean of its neighbours
    filled = poisson(picture, np.zeros_like(picture), mask)
    means = (filled[:-2, 1:-1] + filled[2:, 1:-1] + filled[1:-1, :-2] + filled[1:-1, 2:]) / 4
    inner = mask[1:-1, 1:-1]
    assert filled[1:-1, 1:-1][inner] == pytest.approx(means[inner], abs=1e-6)


def test_what_can_hold_no_lesion_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InvalidInput, match=r"picture has the shape \(64, 60\)"):
        plant("darker", chest()[:, :60], chest()[:, :60], rng)
    air = np.full((SIDE, SIDE), -1, np.float32)
    with pytest.raises(InvalidInput, match="no place for a lesion of the kind 'darker'"):
        plant("darker", air, air, rng)
    with pytest.raises(InvalidInput, match="by less than"):  # white cannot become brighter
        plant("brighter", -air, -air, rng)
