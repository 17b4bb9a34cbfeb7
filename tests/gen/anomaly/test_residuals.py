"""Residuals against closed forms: which scales a band passes, and what it does not see."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from gen.anomaly.body import body_mask
from gen.anomaly.detections import residual_map
from gen.anomaly.healthy_prior import HealthyPrior
from gen.anomaly.regions import cleaned
from gen.anomaly.residuals import (
    AROUND,
    COARSE,
    FEATURE_POWER,
    FINE,
    absolute_residual,
    band_residual,
    departure_map,
    gaussian,
)
from gen.engine import run
from gen.types import ModelCall, Process

SIDE = 128


def wave(half_waves: int, side: int = SIDE) -> Tensor:
    """A cosine (1, 1, S, S) along x that mirrored edges continue."""
    x = torch.arange(side) / (side - 1)
    return torch.cos(math.pi * half_waves * x).expand(1, 1, side, side)


def passed(sigma: float, half_waves: int, side: int = SIDE) -> float:
    """What a Gaussian of `sigma` pixels leaves of such a wave."""
    return math.exp(-((math.pi * half_waves / (side - 1) * sigma) ** 2) / 2)


def texture(side: int, seed: int = 0) -> Tensor:
    """Noise (1, 1, S, S) in [-1, 1]."""
    return torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("half_waves", [1, 4, 12, 30])
def test_a_band_passes_a_wave_by_the_difference_of_two_gaussians(half_waves: int) -> None:
    amplitude = 0.3
    found = band_residual(amplitude * wave(half_waves), torch.zeros(1, 1, SIDE, SIDE))
    share = passed(FINE * SIDE, half_waves) - passed(COARSE * SIDE, half_waves)
    # cos^2 = (1 + cos of twice the frequency) / 2, of which the mean around each pixel is taken
    doubled = passed(AROUND * SIDE, 2 * half_waves) * wave(2 * half_waves)
    wanted = amplitude * abs(share) * ((1 + doubled) / 2).clamp_min(0).sqrt()
    assert found.numpy() == pytest.approx(wanted.numpy(), abs=0.01 * amplitude)


def test_a_band_passes_lesions_better_than_noise_and_exposure() -> None:
    def size(half_waves: int) -> float:
        return float(band_residual(wave(half_waves), torch.zeros(1, 1, SIDE, SIDE)).mean())

    lesion, exposure, noise = size(10), size(1), size(50)
    assert lesion > 10 * exposure
    assert lesion > 10 * noise


@pytest.mark.parametrize("shift", [-0.7, 0.01, 1.0])
def test_a_shift_of_exposure_is_not_seen(shift: float) -> None:
    picture, healthy = texture(64), texture(64, 1)
    plain = band_residual(picture, healthy)
    assert band_residual(picture, picture + shift).max() < 1e-6
    assert torch.allclose(band_residual(picture + shift, healthy), plain, atol=1e-6)
    assert absolute_residual(picture, picture + shift).mean() == pytest.approx(abs(shift), abs=1e-6)


@pytest.mark.parametrize("sigma", [0.25, 0.8, 2.0, 5.3])
@pytest.mark.parametrize("shape", [(32, 32), (24, 40)])
def test_a_gaussian_is_that_of_scipy_with_mirrored_edges(
    sigma: float, shape: tuple[int, int]
) -> None:
    pictures = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(0))
    reach = math.ceil(3 * sigma)
    wanted = gaussian_filter(pictures.numpy(), sigma, mode="mirror", radius=reach, axes=(2, 3))
    assert gaussian(pictures, sigma).numpy() == pytest.approx(wanted, abs=1e-5)


def test_a_gaussian_wider_than_the_picture_still_keeps_constants() -> None:
    assert torch.allclose(gaussian(torch.full((1, 1, 4, 6), 0.4), 50), torch.tensor(0.4))


def test_a_mirrored_or_turned_picture_has_a_mirrored_or_turned_map() -> None:
    picture, healthy = texture(48), texture(48, 1)
    found = band_residual(picture, healthy)
    for dims in ([2], [3], [2, 3]):
        flipped = band_residual(picture.flip(dims), healthy.flip(dims))
        assert torch.allclose(flipped, found.flip(dims), atol=1e-6)
    turned = band_residual(picture.mT, healthy.mT)
    assert torch.allclose(turned, found.mT, atol=1e-6)


def test_a_picture_twice_as_large_has_a_map_twice_as_large() -> None:
    def spot(side: int) -> Tensor:
        place = ((torch.arange(side) + 0.5) / side - 0.4).square()
        return torch.exp(-(place[:, None] + place) / (2 * 0.05**2))[None, None]

    small, large = (band_residual(spot(side), torch.zeros(1, 1, side, side)) for side in (96, 192))
    shrunk = torch.nn.functional.avg_pool2d(large, 2)
    assert small.max() > 0.1
    assert shrunk.numpy() == pytest.approx(small.numpy(), abs=0.01 * float(small.max()))


def test_rivals_are_compared_as_our_own_methods_are() -> None:
    """By the same residual, and nothing counts beside the body."""
    images, healthy = texture(64), texture(64, 1)
    images[..., :20] = healthy[..., :20] = -1
    healthy[:, :, 4:10, 4:10] = 1  # what is unlike in the air
    found = residual_map(images, healthy)
    body = body_mask(images[0, 0].numpy())
    wanted = cleaned(band_residual(images, healthy)[0, 0].numpy(), body)
    assert found.shape == (1, 64, 64)
    assert np.array_equal(found[0].numpy(), wanted)
    assert not found[0, :, :20].any()
    assert found[0, 20:40, 30:50].min() > 0


def test_features_weigh_a_departure_by_a_small_power() -> None:
    generator = torch.Generator()

    def untouched(pictures: Tensor) -> Process[Tensor]:
        return (yield ModelCall("none", (pictures,)))

    def turned(pictures: Tensor) -> Process[Tensor]:
        """Features (N, 4, 4, 2) whose cosine is 0.75 between the picture and the healthy one."""
        angle = torch.tensor([0.0, math.acos(0.75)])
        features = torch.stack([angle.cos(), angle.sin()], -1)
        return (yield ModelCall("none", (features[:, None, None].expand(-1, 4, 4, -1),)))

    picture, healthy = texture(32), texture(32, 1)
    band = band_residual(picture, healthy)
    for features, distance in ((None, 1.0), (turned, 0.25)):
        prior = HealthyPrior(untouched, untouched, untouched, None, generator, features)  # type: ignore[arg-type]
        found = run(departure_map(prior, picture, healthy), {"none": lambda row: row})
        assert torch.allclose(found, band * distance**FEATURE_POWER, atol=1e-6)
