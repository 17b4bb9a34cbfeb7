"""Radial power spectra: how much detail of each size images hold.

A blurred image satisfies a classifier and many distances; its spectrum falls off too early.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.errors import InvalidInput

NUM_BANDS = 16  # equal widths from zero to half the Nyquist frequency


def radial_spectrum(images: Tensor, num_bands: int = NUM_BANDS) -> NDArray[np.float64]:
    """Mean power a band of radial frequency up to half the Nyquist frequency.

    Args:
        images: (N, 1, S, S) uint8. Each is reduced by its mean and weighted by a Hann window, so
            that its borders do not count as edges.
        num_bands: bands of equal width; the first leaves the constant out.

    Returns:
        (N, num_bands) mean squared magnitude; pixels in [0, 1].

    Raises:
        InvalidInput: the images are no squares, or so small that a band holds no frequency.
    """
    if images.ndim != 4 or images.shape[-1] != images.shape[-2]:
        raise InvalidInput(f"images have the shape {tuple(images.shape)}, but must be (N, 1, S, S)")
    side = images.shape[-1]
    window = torch.hann_window(side, periodic=False, dtype=torch.float64)
    frequency = torch.fft.fftfreq(side, dtype=torch.float64) / 0.5  # 1 is the Nyquist frequency
    radius = (frequency[:, None].square() + frequency[None].square()).sqrt()
    band = (radius / 0.5 * num_bands).floor().long()
    band[0, 0] = num_bands
    inside = band.clamp_max(num_bands).flatten()
    counts = torch.bincount(inside, minlength=num_bands + 1)[:num_bands]
    if not counts.all():
        raise InvalidInput(
            f"images have {side} pixels a side, too few for {num_bands} bands; give more than"
            f" {4 * num_bands} pixels or ask for fewer bands"
        )
    powers = []
    for image in images[:, 0]:
        pixels = image.double() / 255
        spectrum = torch.fft.fft2((pixels - pixels.mean()) * window[:, None] * window[None])
        sums = torch.zeros(num_bands + 1, dtype=torch.float64)
        sums.index_add_(0, inside, spectrum.abs().square().flatten())
        powers.append(sums[:num_bands] / counts)
    return torch.stack(powers).numpy()


def band_ratios(first: Tensor, second: Tensor) -> list[float]:
    """Mean power of the first images over the second's in every band: 1 is as much detail."""
    ratio = radial_spectrum(first).mean(0) / radial_spectrum(second).mean(0)
    return [float(each) for each in ratio]
