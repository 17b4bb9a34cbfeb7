"""How alike two radiographs are once one is laid over the other.

What differs between copies of one picture is left out: position up to 6 %, left and right, a crop
down to 90 %, brightness and contrast. What all chests share, the coarse shape of ribs and heart, is
filtered out. The similarity is the largest normalised cross-correlation of the rest over all
shifts: numerators of all shifts at once by Fourier transform, denominators by summed areas (Lewis
1995, Fast Normalized Cross-Correlation).
"""

from collections.abc import Sequence

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

SIDE = 64  # ribs' and vessels' edges, but not the noise and JPEG blocks of a 256-pixel picture
# A copy that was cropped to 90 % and enlarged again is laid on at 58 / 64 of its size.
SIDES = (64, 62, 60, 58)
MARGIN = 4  # what a shift may push out of the picture: 6 % of it
# In grey levels: faint texture of flat regions, which noise would dominate, is kept faint.
_FAINT = 3.0
_MIN_SPREAD = 0.01  # of details, which are of the order of 1: below it a region is flat


def detail(
    images: Tensor, side: int = SIDE, fine: float = 0.0, coarse: float = 2.0, spread: float = 4.0
) -> Tensor:
    """Structure between two scales, brought to the same local contrast everywhere.

    Args:
        images: (N, 1, S, S) uint8.
        side: what they are resized to.
        fine: standard deviation in pixels of `side`; structure below it is left out.
        coarse: structure above it is left out.
        spread: over which local contrast is measured. Without it a bright marker or a black
            border outweighs the chest.

    Returns:
        (N, side, side), of the order of 1; the same for an image times a constant plus another.
    """
    resized = F.interpolate(images.float(), (side, side), mode="bilinear", antialias=True)[:, 0]
    band = _blur(resized, fine) - _blur(resized, coarse)
    contrast = _blur(band.square(), spread)
    return band / (contrast + _FAINT**2).sqrt()


def templates_of(images: Tensor) -> list[Tensor]:
    """What is laid on others: for each of `SIDES`, (N, 2, T, T) as it is and flipped."""
    templates = []
    for side in SIDES:
        middle = detail(images, side)[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
        templates.append(torch.stack([middle, middle.flip(-1)], 1))
    return templates


def similarity(templates: Sequence[Tensor], details: Tensor) -> Tensor:
    """The best normalised cross-correlation over scales, flip and shifts.

    Args:
        templates: each (N, 2, T, T), smaller than the details.
        details: (N, K, S, S), K to compare each with.

    Returns:
        (N, K) in [-1, 1]; 1 is the same structure, and a flat image is about 0 to all.
    """
    side = details.shape[-1]
    spectrum = torch.fft.rfft2(details)[:, :, None]
    areas = [_summed_area(each) for each in (details, details.square())]
    best = details.new_full(details.shape[:2], -1.0)
    for template in templates:
        size = template.shape[-1]
        centred = template - template.mean((-2, -1), keepdim=True)
        unit = centred / centred.norm(dim=(-2, -1), keepdim=True).clamp_min(_MIN_SPREAD * size)
        product = spectrum * torch.fft.rfft2(unit, s=(side, side)).conj()[:, None]
        # shifts that stay inside do not wrap round
        inside = side - size + 1
        sums = torch.fft.irfft2(product, s=(side, side))[..., :inside, :inside]
        total, squares = (_window_sums(area, size) for area in areas)
        norms = (squares - total.square() / size**2).clamp_min((_MIN_SPREAD * size) ** 2).sqrt()
        best = torch.maximum(best, (sums / norms[:, :, None]).amax((-3, -2, -1)))
    return best.clamp(-1, 1)


def halved(details: Tensor) -> Tensor:
    """Details or templates (..., S, S) at half the size, for a first look in a quarter of time."""
    return F.avg_pool2d(details.flatten(0, -3)[:, None], 2)[:, 0].unflatten(0, details.shape[:-2])


def pair_similarity(images: Tensor, others: Tensor) -> Tensor:
    """Similarity (N,) of image i to other i, both (N, 1, S, S) uint8."""
    return similarity(templates_of(images), detail(others)[:, None])[:, 0]


def _blur(images: Tensor, sigma: float) -> Tensor:
    return torch.from_numpy(gaussian_filter(images.numpy(), sigma, axes=(-2, -1)))


def _summed_area(values: Tensor) -> Tensor:
    # float64: windows are differences of sums over the whole image
    return F.pad(values.double(), (1, 0, 1, 0)).cumsum(-1).cumsum(-2)


def _window_sums(area: Tensor, size: int) -> Tensor:
    lower, upper = area[..., size:, :], area[..., :-size, :]
    rows = lower - upper
    return (rows[..., size:] - rows[..., :-size]).float()
