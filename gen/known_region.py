"""Part of a real image that a large image grows around.

At every step the known cells are the real latents with the noise of that step (blended latents,
Avrahami et al. 2022, algorithm 2), and in the end the real pixels are put back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gen.errors import InvalidInput
from gen.tiling import blend, overlapping, ramp
from gen.types import ModelCall, Process

Keep = Callable[[int, int, Tensor], Tensor]
"""(index of the step, top, rows (C, h, W) after it) -> the rows to go on with."""


@dataclass(frozen=True)
class KnownRegion:
    """Real pixels whose upper left corner lies at (`top`, `left`) of the image.

    Args:
        pixels: (h, w, 3) uint8.
        top, left: in pixels.
        mask: (h, w), True where pixels are kept; None keeps all of them.
    """

    pixels: NDArray[np.uint8]
    top: int
    left: int
    mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or self.pixels.dtype != np.uint8:
            raise InvalidInput(
                f"known pixels are {self.pixels.dtype} {self.pixels.shape}, but must be uint8"
                " (height, width, 3)"
            )
        if self.mask is not None and self.mask.shape != self.pixels.shape[:2]:
            raise InvalidInput(
                f"the mask has the shape {self.mask.shape}, but the known pixels"
                f" {self.pixels.shape[:2]}"
            )

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(h, w): the mask, or all."""
        return np.ones(self.pixels.shape[:2], bool) if self.mask is None else self.mask.astype(bool)

    def check(self, height: int, width: int, factor: int) -> None:
        """Raise InvalidInput unless the region lies within the image and holds a cell."""
        h, w = self.pixels.shape[:2]
        inside = self.top >= 0 and self.left >= 0
        if not (inside and self.top + h <= height and self.left + w <= width):
            raise InvalidInput(
                f"the known region is {h} x {w} pixels at ({self.top}, {self.left}), which is not"
                f" within the image of {height} x {width}; move it or make the image larger"
            )
        if min(h, w) < 2 * factor or not self.cell_mask(factor).any():
            raise InvalidInput(
                f"the known region is {h} x {w} pixels, of which no square of {2 * factor} is"
                " kept; keep a larger part"
            )

    def cells(self, factor: int) -> tuple[slice, slice]:
        """Rows and columns of the latent grid that lie within the region."""
        h, w = self.pixels.shape[:2]
        return (
            slice(-(-self.top // factor), (self.top + h) // factor),
            slice(-(-self.left // factor), (self.left + w) // factor),
        )

    def cell_mask(self, factor: int) -> Tensor:
        """(h, w) of the cells of the region, True where every pixel is kept."""
        rows, columns = (_pixels(place, factor) for place in self.cells(factor))
        kept = self.kept[rows.start - self.top : rows.stop - self.top]
        kept = kept[:, columns.start - self.left : columns.stop - self.left]
        grid = kept.reshape(len(kept) // factor, factor, kept.shape[1] // factor, factor)
        return torch.from_numpy(grid.all(axis=(1, 3)))

    def encode(
        self, factor: int, side: int, like: Tensor, scaling_factor: float
    ) -> Process[Tensor]:
        """Latents (C, h, w) of the whole cells of the region, in windows of `side` cells."""
        rows, columns = self.cells(factor)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        side = min(side, height, width)

        def answer(top: int, lefts: Sequence[int]) -> Process[Tensor]:
            y = (rows.start + top) * factor - self.top
            xs = [(columns.start + left) * factor - self.left for left in lefts]
            length = side * factor
            windows = np.stack([self.pixels[y : y + length, x : x + length] for x in xs])
            images = torch.from_numpy(windows).movedim(-1, 1).to(like) / 127.5 - 1
            latents = yield ModelCall("encoder", (images,))
            return latents.cpu()

        bands: list[Tensor] = []
        margin = max(1, side // 4)
        yield from blend(
            overlapping(height, width, side, max(1, side - margin)),
            width,
            ramp(side, margin),
            answer,
            lambda _, band: bands.append(band),
        )
        return torch.cat(bands, dim=1) * scaling_factor

    def weights(self, height: int, width: int, feather: int) -> NDArray[np.float32]:
        """Weights (h, w) of the known pixels in an image of height x width pixels.

        They rise from 0 to 1 within `feather` pixels of what is not kept; the edge of the image
        itself takes nothing away.
        """
        padded = np.pad(self.kept, 1)
        h, w = self.pixels.shape[:2]
        if self.top == 0:
            padded[0] = padded[1]
        if self.top + h == height:
            padded[-1] = padded[-2]
        if self.left == 0:
            padded[:, 0] = padded[:, 1]
        if self.left + w == width:
            padded[:, -1] = padded[:, -2]
        unkept = torch.from_numpy(~padded).float()[None]
        depth = torch.zeros_like(unkept)
        for _ in range(feather + 1):  # by one pixel each: the chessboard distance
            depth += 1 - unkept
            unkept = F.max_pool2d(unkept, 3, stride=1, padding=1)
        weights = ((depth - 0.5) / feather).clamp(0, 1)[0, 1:-1, 1:-1]
        return weights.numpy()

    def paste(
        self, top: int, band: NDArray[np.uint8], weights: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """A band (b, W, 3) of the image, from row `top` on, with the known pixels in their place.

        `weights` are those of `weights`.
        """
        h, w = self.pixels.shape[:2]
        first, last = max(top, self.top), min(top + len(band), self.top + h)
        if first >= last:
            return band
        own = slice(first - self.top, last - self.top)
        place = slice(first - top, last - top), slice(self.left, self.left + w)
        share = weights[own, :, None]
        mixed = band.copy()
        mixed[place] = np.round(share * self.pixels[own] + (1 - share) * band[place])
        return mixed


def _pixels(cells: slice, factor: int) -> slice:
    return slice(cells.start * factor, cells.stop * factor)


def keep_known(
    latents: Tensor,
    place: tuple[slice, slice],
    mask: Tensor,
    scheduler: Any,
    generator: torch.Generator,
) -> Keep:
    """Put known latents back after each step, with the noise of the next one.

    Args:
        latents: clean ones (C, h, w).
        place: their rows and columns of the canvas.
        mask: (h, w), True where they are known.
        scheduler: with its timesteps set; it is not stepped.
        generator: of the noise, drawn band by band from the top.
    """
    rows, columns = place
    timesteps = scheduler.timesteps

    def keep(index: int, top: int, band: Tensor) -> Tensor:
        first, last = max(top, rows.start), min(top + band.shape[1], rows.stop)
        if first >= last:
            return band
        own = slice(first - rows.start, last - rows.start)
        known = latents[:, own]
        if index + 1 < len(timesteps):
            noise = torch.randn(known.shape, generator=generator)
            when = timesteps[index + 1 : index + 2]
            known = scheduler.add_noise(known[None], noise[None], when)[0]
        band = band.clone()
        target = band[:, first - top : last - top, columns]
        target.copy_(torch.where(mask[own], known.to(band), target))
        return band

    return keep
