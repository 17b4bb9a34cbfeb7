"""Tiles of stained tissue at several magnifications, cut from a manifest's regions.

A region of so many microns a pixel also serves coarser magnifications, shrunk; it is never enlarged
by more than `TOLERANCE`. There are few regions, so nothing is set aside by patient: every
`HOLD_OUT`-th tile is `val`, a neighbour of training tiles that shares no pixel with them.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from gen.data.images import read_colour
from gen.errors import InvalidInput

TOLERANCE = 1.1
HOLD_OUT = 10
LEAST_SIDE = 0.8  # of a tile's; a smaller region, mirrored more, would be a kaleidoscope
LEAST_TISSUE = 0.05  # of a tile's pixels; emptier ones say nothing but "glass"
GLASS = 220  # grey level from where on a pixel shows the lamp


class TissueConfig(BaseModel):
    """Which tiles a recipe is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    spacings: dict[str, float] = Field(
        min_length=1,
        description="Pattern of the manifest's files, such as 'tiles/kather_*', to their microns"
        " a pixel; files that no pattern fits are left out",
    )
    magnifications: tuple[float, ...] = Field(
        (0.5,), min_length=1, description="Microns a pixel of the tiles"
    )


class TilesConfig(BaseModel):
    """Which tiles a recipe cuts patches from, and how often from each."""

    tissue: TissueConfig
    tile_size: int = Field(256, ge=32, description="Side of the tiles that patches are cut from")
    balance: float = Field(
        0.5, ge=0, le=1, description="0: tiles as they come; 1: magnifications equally often"
    )


@dataclass(frozen=True)
class Region:
    """`pixels` (H, W, 3) uint8 at `microns_per_pixel`; `fields` are its manifest row."""

    pixels: NDArray[np.uint8]
    microns_per_pixel: float
    fields: dict[str, str]


@dataclass(frozen=True)
class Tiles:
    """`images` (N, 3, S, S) uint8, `microns_per_pixel` (N,), and a manifest row each.

    `corners` are of each the upper left pixel (y, x) in its region at that magnification, negative
    where the region was mirrored.
    """

    images: Tensor
    microns_per_pixel: Tensor
    fields: list[dict[str, str]]
    corners: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.fields)


def read_regions(folder: Path, split: str, spacings: Mapping[str, float]) -> list[Region]:
    """Regions of one split, in the manifest's order.

    Args:
        folder: with manifest.csv.
        split: of the rows that are read.
        spacings: see `TissueConfig`; the first pattern that fits a file counts.

    Raises:
        InvalidInput: there is no manifest, or no row of that split and those patterns.
    """
    manifest = folder / "manifest.csv"
    if not manifest.exists():
        raise InvalidInput(f"data is {folder}, which has no manifest.csv; name the folder with it")
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    found = [(row, _spacing_of(row["file"], spacings)) for row in rows]
    regions = [
        Region(read_colour(folder / row["file"]), spacing, row)
        for row, spacing in found
        if spacing is not None
    ]
    if not regions:
        patterns = ", ".join(spacings)
        raise InvalidInput(f"{manifest} has no {split!r} file like any of: {patterns}")
    return regions


def _spacing_of(file: str, spacings: Mapping[str, float]) -> float | None:
    return next((value for pattern, value in spacings.items() if fnmatch(file, pattern)), None)


def rescale(region: Region, microns_per_pixel: float) -> Region | None:
    """The region at a magnification, or None where it would have to be enlarged."""
    factor = region.microns_per_pixel / microns_per_pixel
    if factor > TOLERANCE:
        return None
    if factor > 1 / TOLERANCE:
        return region
    height, width = (max(1, round(side * factor)) for side in region.pixels.shape[:2])
    small = Image.fromarray(region.pixels).resize((width, height), Image.Resampling.LANCZOS)
    return Region(np.asarray(small), microns_per_pixel, region.fields)


def grow(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Mirror what is smaller than a tile at its edges until it is one."""
    room = [max(0, side - length) for length in pixels.shape[:2]]
    margins = [(each // 2, each - each // 2) for each in room]
    return np.pad(pixels, [*margins, (0, 0)], mode="symmetric")


def cut(region: Region, side: int) -> Iterator[tuple[tuple[int, int], NDArray[np.uint8]]]:
    """Tiles (S, S, 3) side by side that show tissue, each after its corner (y, x) in the region.

    A region that is far smaller than a tile has none.
    """
    if min(region.pixels.shape[:2]) < LEAST_SIDE * side:
        return
    pixels = grow(region.pixels, side)
    height, width = pixels.shape[:2]
    above = (height - region.pixels.shape[0]) // 2
    before = (width - region.pixels.shape[1]) // 2
    for top in _starts(height, side):
        for left in _starts(width, side):
            tile = pixels[top : top + side, left : left + side]
            if (tile.min(axis=2) < GLASS).mean() >= LEAST_TISSUE:
                yield (top - above, left - before), tile


def _starts(length: int, side: int) -> range:
    """A rest of less than a tile is left out, so that tiles share no pixel."""
    return range(0, length - side + 1, side)


def read_tiles(
    folder: Path,
    split: Literal["train", "val"],
    side: int,
    config: TissueConfig,
) -> Tiles:
    """Tiles of `side` pixels at every magnification."""
    images, scales, fields, corners = [], [], [], []
    number = 0
    for region in read_regions(folder, "train", config.spacings):
        for magnification in config.magnifications:
            scaled = rescale(region, magnification)
            for corner, tile in cut(scaled, side) if scaled else ():
                if (number % HOLD_OUT == 0) == (split == "val"):
                    images.append(torch.from_numpy(tile.copy()).permute(2, 0, 1))
                    scales.append(magnification)
                    fields.append(region.fields)
                    corners.append(corner)
                number += 1
    if not images:
        raise InvalidInput(
            f"{folder} gives no tile of {side} pixels at magnifications"
            f" {list(config.magnifications)}; choose smaller tiles or coarser magnifications"
        )
    return Tiles(torch.stack(images), torch.tensor(scales), fields, corners)


def row_weights(microns_per_pixel: Tensor, balance: float) -> Tensor:
    """How often each tile is drawn: the size of its magnification to the power of -balance."""
    values = microns_per_pixel.tolist()
    sizes = Counter(values)
    return torch.tensor([sizes[value] ** -balance for value in values])


def turn(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image (N, C, S, S) in one of the eight positions of a square: tissue has no upright."""
    count = len(images)
    turned = images.clone()
    flips = torch.rand(count, generator=generator) < 0.5
    turned[flips] = turned[flips].flip(-1)
    quarters = torch.randint(4, (count,), generator=generator)
    for quarter in range(1, 4):
        chosen = quarters == quarter
        turned[chosen] = turned[chosen].rot90(quarter, (-2, -1))
    return turned
