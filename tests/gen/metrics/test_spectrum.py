"""Radial spectra of pictures whose spectra are known."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gen.errors import InvalidInput
from gen.metrics.spectrum import NUM_BANDS, band_ratios, radial_spectrum

SIDE = 128


def as_pictures(values: Tensor) -> Tensor:
    """(N, H, W) about [-1, 1] as uint8 (N, 1, H, W)."""
    return (values * 100 + 128).round().clamp(0, 255).to(torch.uint8)[:, None]


def noise(deviation: float, seed: int = 0) -> Tensor:
    """White noise pictures (4, SIDE, SIDE)."""
    return torch.randn(4, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * deviation


@pytest.mark.parametrize("band", [1, 5, 12])
def test_a_wave_lies_in_its_band(band: int) -> None:
    cycles = (band + 0.5) / NUM_BANDS * 0.5 * SIDE / 2  # of half the Nyquist frequency
    wave = torch.sin(2 * torch.pi * cycles * torch.arange(SIDE) / SIDE).expand(1, SIDE, SIDE)
    spectrum = radial_spectrum(as_pictures(wave))[0]
    assert spectrum.argmax() == band
    assert spectrum[band] > 20 * np.delete(spectrum, [band - 1, band, band + 1]).max()


def test_white_noise_is_flat() -> None:
    spectrum = radial_spectrum(as_pictures(noise(0.3))).mean(0)
    assert spectrum[2:].max() / spectrum[2:].min() < 1.5


def test_blur_takes_the_high_bands_away() -> None:
    pictures = as_pictures(noise(0.5)).float()
    blurred = F.avg_pool2d(pictures, 5, 1, 2).round().to(torch.uint8)
    ratios = band_ratios(blurred, pictures.to(torch.uint8))
    assert ratios[0] > 0.8
    assert ratios[-1] < 0.2
    assert ratios[0] > ratios[5] > ratios[10] > ratios[-1]


def test_power_is_the_square_of_contrast() -> None:
    ratios = band_ratios(as_pictures(noise(0.4)), as_pictures(noise(0.2)))
    assert ratios == pytest.approx([4] * NUM_BANDS, rel=0.05)


def test_pictures_that_are_not_square_are_refused() -> None:
    with pytest.raises(InvalidInput, match="must be"):
        radial_spectrum(torch.zeros(1, 1, 4, 6))


def test_a_diagonal_wave_lies_at_its_radius() -> None:
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    wave = torch.sin(2 * torch.pi * (12 * y + 9 * x) / SIDE)[None]
    assert radial_spectrum(as_pictures(wave))[0].argmax() == int(15 / (SIDE / 4) * NUM_BANDS)


def test_brightness_is_no_detail() -> None:
    flat = torch.full((1, 1, SIDE, SIDE), 200, dtype=torch.uint8)
    assert radial_spectrum(flat) == pytest.approx(0, abs=1e-12)


def test_the_power_of_white_noise_is_its_variance_times_the_windows_energy() -> None:
    deviation = 0.3 * 100 / 255
    energy = np.square(np.hanning(SIDE)).sum() ** 2
    spectrum = radial_spectrum(as_pictures(noise(0.3))).mean(0)
    assert spectrum[2:].mean() == pytest.approx(deviation**2 * energy, rel=0.05)


def test_a_set_has_as_much_detail_as_itself() -> None:
    pictures = as_pictures(noise(0.3))
    assert band_ratios(pictures, pictures) == [1] * NUM_BANDS


def test_pictures_too_small_for_the_bands_are_refused() -> None:
    with pytest.raises(InvalidInput, match="more than 64 pixels"):
        radial_spectrum(torch.zeros(1, 1, 64, 64))
    for side in range(65, 72):
        assert np.isfinite(radial_spectrum(torch.zeros(1, 1, side, side))).all()
