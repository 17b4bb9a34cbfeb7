"""Copies of one picture are found whatever angle they are turned by, and nothing else is."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from gen.errors import InvalidInput
from gen.metrics.near_duplicates import group_near_duplicates, turned_alike

SIDE = 96


def tissue(seed: int, side: int = SIDE) -> Tensor:
    """(3, side, side) uint8: purple blobs on pink, of colours that pictures have in common."""
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.normal(size=(side, side)), side / 40)
    dark = np.clip(noise / noise.std(), -1, 1)[..., None] / 2 + 0.5
    pixels = dark * (90, 50, 140) + (1 - dark) * (230, 160, 200)
    return torch.from_numpy(pixels.astype(np.uint8)).movedim(-1, 0)


def copy_of(image: Tensor, degrees: float, mirrored: bool) -> Tensor:
    """Turned, cropped to the largest square without a corner missing, enlarged: as LC25000 is."""
    side, angle = image.shape[-1], math.radians(degrees)
    picture = Image.fromarray(image.movedim(0, -1).numpy())
    if mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    inner = int(side / (abs(math.cos(angle)) + abs(math.sin(angle))))
    start = (side - inner) // 2
    turned = picture.rotate(degrees, Image.Resampling.BICUBIC)
    cropped = turned.crop((start, start, start + inner, start + inner))
    large = cropped.resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(large)).movedim(-1, 0)


def test_turned_and_mirrored_copies_are_of_their_originals_group() -> None:
    originals = [tissue(seed) for seed in range(4)]
    poses = [(17.0, False), (-23.0, True), (205.0, False)]
    copies = [copy_of(originals[i], *pose) for i, pose in enumerate(poses)]
    groups = group_near_duplicates(torch.stack(originals + copies))
    assert groups == [0, 1, 2, 3, 0, 1, 2]


def test_copies_of_copies_are_of_one_group_in_any_order() -> None:
    first = tissue(0)
    second = copy_of(first, 20, False)
    third = copy_of(second, 20, True)
    images = [tissue(1), third, tissue(2), first, tissue(3), second]
    assert group_near_duplicates(torch.stack(images)) == [0, 1, 2, 1, 4, 1]


def test_pictures_of_one_stain_are_no_copies() -> None:
    images = torch.stack([tissue(seed) for seed in range(7)])
    told: list[tuple[int, int]] = []
    groups = group_near_duplicates(images, lambda done, total: told.append((done, total)))
    assert groups == list(range(7))
    assert told == [(done, 7) for done in range(1, 8)]


def test_a_lone_picture_and_flat_ones_do_no_harm() -> None:
    assert group_near_duplicates(tissue(0)[None]) == [0]
    flat = torch.full((3, 3, SIDE, SIDE), 240, dtype=torch.uint8)
    assert group_near_duplicates(flat) == [0, 1, 2]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), quarters=st.integers(0, 3), mirrored=st.booleans())
def test_what_candidates_are_chosen_by_is_the_same_in_the_eight_positions(
    seed: int, quarters: int, mirrored: bool
) -> None:
    image = tissue(seed)
    turned = torch.rot90(image, quarters, (-2, -1))
    turned = turned.flip(-1) if mirrored else turned
    # a Hann window of 64 is centred half a pixel off, which shifts the fine bands by little
    first, second = turned_alike(torch.stack([image, turned]))
    other = turned_alike(tissue(seed + 1)[None])[0]
    assert (first - second).norm() < 0.2 * (first - other).norm()


def test_grey_or_oblong_pictures_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"images have the shape \(2, 1, 8, 8\)"):
        group_near_duplicates(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
