"""Which tiles of tissue are one picture: turned, mirrored, zoomed in up to a third, or all of that.

Published sets of tiles hold such copies, made to have more of them; where one is trained on and
another is held out, a classifier that remembers looks as if it had learnt. Tissue has no upright,
so any angle counts. Candidates have the same colours, which turning leaves as they are; two are a
pair if the middle of one is found in the other by its structure (`gen.metrics.aligned`), tried at
36 angles, mirrored or not, at six sizes and all shifts.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from gen.errors import InvalidInput
from gen.metrics.aligned import detail, similarity
from gen.metrics.nearest import nearest

SIDE = 48
SIDES = (48, 45, 42, 39, 37, 35)  # a copy turned by 25 degrees and cropped to a square is 36 / 48
NUM_ANGLES = 36  # half a step moves the corners of what is turned by a pixel and a half
FINE, COARSE = 0.7, 3.0  # pixels: structure that survives a turn, but not what all tissue shares
# Of 60 copies made so (turned by up to 25 degrees, cropped, mirrored) of lung tiles all reached
# 0.79; of 300 pairs of other tiles with the most similar colours the most alike had 0.64.
THRESHOLD = 0.7
CANDIDATES = 6  # a copy's original was never further down than fifth by colour
_LEVELS = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
_BANDS = ((1, 3), (3, 6), (6, 10), (10, 16), (16, 24), (24, 32))  # cycles over the picture
_BAND_WEIGHT = 0.3  # of the logarithm of a band's power, beside levels in [0, 1]
_SMALL = 64


def group_near_duplicates(
    images: Tensor, report: Callable[[int, int], None] = lambda *_: None
) -> list[int]:
    """A number for each of the images (N, 3, S, S) uint8, equal where one is a copy of another.

    Copies of copies are of one group. Groups are numbered by their first image, from 0.

    Raises:
        InvalidInput: the images are not colour squares.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise InvalidInput(
            f"images have the shape {tuple(images.shape)}, but must be (number, 3, side, side); cut"
            " squares out of colour pictures"
        )
    first = list(range(len(images)))
    if len(images) < 2:
        return first
    grey = images.float().mean(1, keepdim=True).round().to(torch.uint8)
    details = detail(grey, SIDE, FINE, COARSE)
    # a picture is the nearest to itself
    candidates = _by_colour(images, min(CANDIDATES + 1, len(images)))
    for index, others in enumerate(candidates):
        others = others[others != index]
        found = similarity(poses(grey[index : index + 1]), details[others][None])[0]
        for other in others[found > THRESHOLD].tolist():
            _join(first, index, other)
        report(index + 1, len(images))
    return [_root(first, index) for index in range(len(images))]


def poses(images: Tensor) -> list[Tensor]:
    """The middle of images (N, 1, S, S) uint8 in every pose: for each size (N, 72, T, T)."""
    angles = torch.arange(NUM_ANGLES) * (2 * math.pi / NUM_ANGLES)
    cosine, sine = angles.cos(), angles.sin()
    turn = torch.stack([cosine, -sine, sine, cosine], 1).view(-1, 2, 2)
    found = []
    for side in SIDES:
        inner = 2 * int((side / math.sqrt(2) - 2) / 2)  # its corners stay inside at any angle
        affine = F.pad(turn * (inner / side), (0, 1))
        grid = F.affine_grid(affine, [NUM_ANGLES, 1, inner, inner], align_corners=False)
        turned = [
            F.grid_sample(each.expand(NUM_ANGLES, 1, -1, -1), grid, align_corners=False)[:, 0]
            for each in detail(images, side, FINE, COARSE)
        ]
        upright = torch.stack(turned)
        found.append(torch.cat([upright, upright.flip(-1)], 1))
    return found


def turned_alike(images: Tensor) -> Tensor:
    """What a turn or a mirror leaves as it is, (N, 27): colours' quantiles, power by frequency.

    Args:
        images: (N, 3, S, S) uint8.
    """
    small = F.interpolate(images.float(), (_SMALL, _SMALL), mode="bilinear", antialias=True) / 255
    levels = torch.quantile(small.flatten(2), torch.tensor(_LEVELS), dim=2)
    grey = small.mean(1)
    window = torch.hann_window(_SMALL)
    centred = (grey - grey.mean((1, 2), keepdim=True)) * window * window[:, None]
    power = torch.fft.fft2(centred).abs().square()
    cycles = torch.fft.fftfreq(_SMALL) * _SMALL
    radius = (cycles.square() + cycles.square()[:, None]).sqrt().round()
    bands = [power[:, (radius >= low) & (radius < high)].mean(1) for low, high in _BANDS]
    faint = 1e-6  # of a flat picture
    logs = (torch.stack(bands, 1) + faint).log()
    return torch.cat([levels.permute(1, 2, 0).flatten(1), _BAND_WEIGHT * logs], 1)


def _by_colour(images: Tensor, count: int) -> Tensor:
    """Rows (N, count) of the images most alike in what a turn leaves, itself among them."""
    described = torch.cat([turned_alike(part) for part in images.split(64)])
    described = (described - described.mean(0)) / described.std(0).clamp_min(1e-6)
    # the nearest by distance have the largest product with (-2 x, 1) against (x, |x|^2), negated
    squares = described.square().sum(1, keepdim=True)
    ones = torch.ones_like(squares)
    return nearest(torch.cat([2 * described, -ones], 1), torch.cat([described, squares], 1), count)


def _root(first: list[int], index: int) -> int:
    while first[index] != index:
        index = first[index]
    return index


def _join(first: list[int], one: int, other: int) -> None:
    low, high = sorted((_root(first, one), _root(first, other)))
    first[high] = low
