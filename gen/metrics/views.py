"""Pictures of any size as their measures read them: at one magnification, by bands and blocks."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gen.data.slide import Slide
from gen.encoders.encoder import Encoder
from gen.encoders.windows import ReadPixels
from gen.errors import InvalidInput

ENLARGED = 1.1  # more is blur, which would be taken for the picture's own
_REACH = 3  # of the Lanczos filter, in pixels of the smaller picture


@dataclass(frozen=True)
class View:
    """A picture of height x width pixels, of which `read` gives regions (h, w, 3) uint8."""

    name: str
    height: int
    width: int
    read: ReadPixels


@dataclass(frozen=True)
class Block:
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


def view_of(slide: Slide) -> View:
    """The slide at its own magnification."""
    return View(slide.name, slide.height, slide.width, slide.read)


def shrunk(view: View, factor: float) -> View:
    """The picture with `factor` of its pixels on each pixel, whichever region is read.

    Args:
        view: the original.
        factor: microns per pixel wanted over those of the original; 1 within a tenth is 1.

    Raises:
        InvalidInput: the picture would have to be enlarged.
    """
    if not 1 / ENLARGED <= factor < math.inf:
        raise InvalidInput(
            f"{view.name} would be enlarged {1 / factor:.2f} times, but what it does not show"
            " cannot be compared; choose more microns per pixel"
        )
    if factor <= ENLARGED:
        return view
    height, width = (max(1, round(side / factor)) for side in (view.height, view.width))
    scale_y, scale_x = view.height / height, view.width / width
    reach = math.ceil(_REACH * factor) + 1

    def read(top: int, left: int, rows: int, columns: int) -> NDArray[np.uint8]:
        y, x = top * scale_y, left * scale_x
        y_end, x_end = (top + rows) * scale_y, (left + columns) * scale_x
        first_y, first_x = max(0, math.floor(y) - reach), max(0, math.floor(x) - reach)
        last_y = min(view.height, math.ceil(y_end) + reach)
        last_x = min(view.width, math.ceil(x_end) + reach)
        region = Image.fromarray(view.read(first_y, first_x, last_y - first_y, last_x - first_x))
        box = (
            x - first_x,
            y - first_y,
            min(x_end - first_x, region.width),
            min(y_end - first_y, region.height),
        )
        return np.asarray(region.resize((columns, rows), Image.Resampling.LANCZOS, box))

    return View(view.name, height, width, read)


def blocks_of(view: View, side: int) -> list[Block]:
    """Blocks of `side` pixels or a little more, which cover the picture and share no pixel."""
    ys, xs = (_edges(length, side) for length in (view.height, view.width))
    return [
        Block(top, left, bottom - top, right - left)
        for top, bottom in pairwise(ys)
        for left, right in pairwise(xs)
    ]


def _edges(length: int, side: int) -> list[int]:
    count = max(1, length // side)
    return [round(length * i / count) for i in range(count + 1)]


def starts(length: int, side: int, stride: int) -> list[int]:
    """Where windows of `side` begin, every `stride` pixels and one at the end; none too few."""
    if length < side:
        return []
    return sorted({*range(0, length - side, stride), length - side})


def bands(view: View, side: int, stride: int) -> Iterator[tuple[int, list[int], NDArray[np.uint8]]]:
    """Yield (top, lefts, windows (n, side, side, 3)) of a whole picture, a band at a time."""
    lefts = starts(view.width, side, stride)
    for top in starts(view.height, side, stride) if lefts else ():
        band = view.read(top, 0, side, view.width)
        yield top, lefts, np.stack([band[:, left : left + side] for left in lefts])


def to_tensor(windows: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> Tensor:
    """Windows (N, S, S, 3) as (N, 3, S, S) uint8."""
    return torch.from_numpy(np.asarray(windows)).movedim(-1, 1)


def embed(encoder: Encoder, windows: Tensor) -> Tensor:
    """Embeddings (N, D) of unit length of windows (N, 3, S, S) uint8, a batch at a time."""
    parts = windows.split(encoder.batch_size)
    return torch.cat([encoder.embed(each.float() / 127.5 - 1) for each in parts])
