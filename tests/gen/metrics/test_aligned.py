"""Images laid over each other: what of them correlates, wherever it is."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from gen.metrics.aligned import (
    MARGIN,
    detail,
    halved,
    pair_similarity,
    similarity,
    templates_of,
)


def textures(count: int, seed: int = 0, side: int = 128) -> Tensor:
    """Smooth random pictures (count, 1, side, side) uint8 that have nothing in common."""
    noise = np.random.default_rng(seed).normal(size=(count, 1, side, side))
    smooth = gaussian_filter(noise, side / 50, axes=(-2, -1))
    return torch.from_numpy(128 + 40 * smooth / smooth.std()).clamp(0, 255).to(torch.uint8)


def test_it_is_the_largest_correlation_coefficient_of_any_window() -> None:
    generator = torch.manual_seed(0)
    details = torch.randn(2, 3, 12, 12, generator=generator)
    templates = [torch.randn(2, 2, size, size, generator=generator) for size in (8, 10)]
    expected = np.full((2, 3), -1.0)
    for template in templates:
        size = template.shape[-1]
        for (i, k), best in np.ndenumerate(expected.copy()):
            windows = details[i, k].unfold(0, size, 1).unfold(1, size, 1).reshape(-1, size * size)
            found = [
                np.corrcoef(window, part.flatten())[0, 1]
                for window in windows.numpy()
                for part in template[i].numpy()
            ]
            expected[i, k] = max(best, expected[i, k], *found)
    assert np.allclose(similarity(templates, details), expected, atol=1e-5)


@pytest.mark.parametrize(
    "alter",
    [
        lambda images: images,
        lambda images: images.flip(-1),
        lambda images: (images.float() * 0.6 + 50).to(torch.uint8),
        lambda images: images.roll((6, -6), (-2, -1)),
        lambda images: F.interpolate(images[..., 3:118, 9:124].float(), (128, 128)).to(torch.uint8),
    ],
    ids=["same", "flipped", "paler", "moved", "cropped"],
)
def test_copies_are_alike_and_others_are_not(alter: Callable[[Tensor], Tensor]) -> None:
    images = textures(4)
    copied = pair_similarity(alter(images), images)
    assert copied.min() > 0.85
    assert pair_similarity(alter(images), images.roll(1, 0)).max() < 0.5


def test_an_image_is_wholly_like_itself_and_its_flip() -> None:
    images = textures(2)
    assert torch.allclose(pair_similarity(images, images), torch.ones(2), atol=1e-5)
    assert torch.allclose(pair_similarity(images.flip(-1), images), torch.ones(2), atol=1e-5)


def test_flat_images_are_like_nothing() -> None:
    flat = torch.full((2, 1, 64, 64), 200, dtype=torch.uint8)
    pairs = [(flat, textures(2)), (textures(2), flat), (flat, flat)]
    for first, second in pairs:
        assert pair_similarity(first, second).abs().max() < 0.001


def test_detail_leaves_out_the_coarse_and_evens_contrast_out() -> None:
    ramp = torch.arange(128.0).expand(1, 1, 128, 128)
    # a straight slope has no detail but at the border, where the picture ends
    assert detail(ramp.to(torch.uint8))[:, 12:-12, 12:-12].abs().max() < 0.01
    image = textures(1).float()
    gain = torch.linspace(0.4, 1, 128)
    uneven = ((image - 128) * gain + 128).to(torch.uint8)
    plain, evened = (detail(each).square().mean((0, 1)) for each in (image.to(torch.uint8), uneven))
    left, right = slice(0, 20), slice(-20, None)
    # contrast of power 0.16 to 1 in the picture
    ratio = (evened[left].mean() / plain[left].mean()) / (
        evened[right].mean() / plain[right].mean()
    )
    assert ratio > 0.9


def test_templates_are_the_middle_and_its_flip_and_halve_by_means() -> None:
    images = textures(2)
    largest = templates_of(images)[0]
    whole = detail(images)
    assert torch.equal(largest[:, 0], whole[:, MARGIN:-MARGIN, MARGIN:-MARGIN])
    assert torch.equal(largest[:, 1], largest[:, 0].flip(-1))
    half = halved(largest)
    assert half.shape == (2, 2, 28, 28)
    assert torch.allclose(half[1, 0, 0, 0], largest[1, 0, :2, :2].mean())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), scale=st.floats(1e-3, 1e3))
def test_a_correlation_is_bounded_and_has_no_unit(seed: int, scale: float) -> None:
    generator = torch.manual_seed(seed)
    details = torch.randn(1, 2, 16, 16, generator=generator) + 5
    template = torch.randn(1, 2, 12, 12, generator=generator)
    found = similarity([template], details)
    assert found.abs().max() <= 1
    if scale > 0.1:  # below it a template counts as flat
        assert torch.allclose(similarity([template * scale], details), found, atol=1e-4)
