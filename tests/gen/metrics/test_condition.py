"""Cosines of places to their conditions, in closed form."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from gen.encoders.encoder import Encoder
from gen.errors import InvalidInput
from gen.metrics.condition import cosines, cosines_between, field_of, similarity
from gen.metrics.views import View

SIDE = 16


def colours(images: Tensor) -> Tensor:
    return images.mean((2, 3)) + 0.01


ENCODER = Encoder("colours", SIDE, SIDE, colours, "cpu", 3)


def stripes(width: int = 256, flipped: bool = False, height: int = 128) -> View:
    """Red on the left, blue on the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 250
    pixels = pixels[:, ::-1] if flipped else pixels
    return View("stripes", height, width, lambda y, x, h, w: pixels[y : y + h, x : x + w])


@settings(deadline=None, max_examples=20)
@given(count=st.integers(2, 12), seed=st.integers(0, 99))
def test_the_mean_to_other_rows_is_that_of_all_pairs(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    seen, wanted = F.normalize(torch.randn(2, count, 5, generator=generator), dim=-1)
    own, others = cosines_between(seen, wanted)
    for i in range(count):
        assert own[i] == pytest.approx(float(seen[i] @ wanted[i]), abs=1e-5)
        mean = np.mean([float(seen[i] @ wanted[j]) for j in range(count) if j != i])
        assert others[i] == pytest.approx(mean, abs=1e-5)


def test_an_image_laid_out_as_asked_agrees_and_its_mirror_image_does_not() -> None:
    field = field_of(stripes(), ENCODER, SIDE)
    reference = cosines(stripes(), field, ENCODER, SIDE)
    # twice as wide: the field is stretched
    found = similarity([cosines(stripes(512), field, ENCODER, SIDE)], reference)
    assert found.own.value > 0.97
    assert found.reference.value > 0.97
    # about half of the other places are of the other colour
    assert found.others.value == pytest.approx(0.54, abs=0.05)
    assert found.gap.value == pytest.approx(found.own.value - found.others.value)
    mirrored = similarity([cosines(stripes(flipped=True), field, ENCODER, SIDE)], reference)
    assert mirrored.own.value < 0.2
    assert mirrored.gap.high < 0


def test_places_of_a_block_are_drawn_together_and_those_of_two_images_are_not() -> None:
    field = field_of(stripes(), ENCODER, SIDE)
    found = cosines(stripes(), field, ENCODER, SIDE)
    assert len(found.own) == len(found.others) == len(found.blocks) == 8 * 16
    assert len(set(found.blocks)) == 2 * 4
    small = cosines(stripes(128, height=64), field, ENCODER, SIDE)
    assert len(set(small.blocks)) == 2
    similarity([small, small], found)  # four blocks together
    with pytest.raises(InvalidInput, match="at least 4"):
        similarity([small], found)


def test_an_image_of_one_patch_is_refused() -> None:
    field = field_of(stripes(), ENCODER, SIDE)
    with pytest.raises(InvalidInput, match="fewer than two patches"):
        cosines(stripes(SIDE, height=SIDE), field, ENCODER, SIDE)
