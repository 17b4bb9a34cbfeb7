"""Masks to learn from: their shapes, how often each is drawn, and that each paints something."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from gen.training.masks import SHAPES, MaskShares, blob, draw_masks, grid, rectangle

NONE = dict.fromkeys(SHAPES, 0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.sampled_from(list(SHAPES)), st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
def test_every_mask_paints_something_and_is_of_0_and_1(
    name: str, height: int, width: int, seed: int
) -> None:
    mask = SHAPES[name](height, width, seeded(seed))
    assert mask.shape == (height, width)
    assert mask.any()
    assert ((mask == 0) | (mask == 1)).all()


def test_shapes_are_drawn_as_often_as_their_shares_say() -> None:
    shares = MaskShares(**{**NONE, "rectangle": 3, "everything": 1})
    masks = draw_masks(shares, 2000, (40, 40), seeded())
    assert masks.shape == (2000, 1, 40, 40)
    everything = masks.flatten(1).all(1).float().mean()
    # of the 75 % that are rectangles, one in 1,600 is the whole
    assert float(everything) == pytest.approx(0.25, abs=0.03)


def test_a_rectangle_is_one_box_of_any_size_anywhere() -> None:
    generator = seeded()
    seen = torch.zeros(6, 8)
    areas = set()
    for _ in range(400):
        mask = rectangle(6, 8, generator)
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.all()
        seen += mask
        areas.add(int(mask.sum()))
    assert seen.all()
    assert {1, 48} <= areas


def test_blobs_are_of_all_areas_asked_for() -> None:
    generator = seeded()
    areas = torch.tensor([float(blob(32, 32, generator).mean()) for _ in range(300)])
    assert float(areas.min()) == pytest.approx(0.05, abs=0.01)
    assert float(areas.max()) == pytest.approx(0.75, abs=0.01)
    # smooth: a neighbour is nearly always of the same kind
    same: list[Tensor] = []
    for _ in range(100):
        mask = blob(32, 32, generator)
        same.append((mask.diff(dim=1) == 0).float().mean())
    assert float(torch.stack(same).mean()) > 0.9


def test_patches_of_a_grid_are_painted_as_a_whole() -> None:
    generator = seeded()
    for _ in range(50):
        mask = grid(840, 840, generator)  # a multiple of every number of patches
        assert any(whole_patches(mask, side) for side in range(2, 9))


def whole_patches(mask: Tensor, side: int) -> bool:
    pitch = 840 // side
    patches = mask.unfold(0, pitch, pitch).unfold(1, pitch, pitch)
    return bool((patches.amax((2, 3)) == patches.amin((2, 3))).all())


@pytest.mark.parametrize(
    ("shares", "words"),
    [(NONE, "all shares are 0"), ({"blob": -1}, "greater than"), ({"ring": 1}, "not permitted")],
)
def test_shares_must_name_a_shape(shares: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MaskShares(**shares)
