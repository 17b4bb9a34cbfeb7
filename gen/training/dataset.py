"""A manifest's images in memory at one size, with the labels their captions are made from."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gen.data.captions import Labels, labels_of
from gen.data.images import read_image
from gen.data.transforms import fit
from gen.errors import InvalidInput

MIN_STORED_SIDE = 128  # smaller files are previews: blurred at any size trained here


@dataclass(frozen=True)
class ChestXrays:
    """`images` (N, 1, S, S) uint8; `labels` and `fields` (a manifest row each) in their order."""

    images: Tensor
    labels: list[Labels]
    fields: list[dict[str, str]]

    def __len__(self) -> int:
        return len(self.labels)

    def every(self, stride: int) -> "ChestXrays":
        """One image in `stride`."""
        return ChestXrays(self.images[::stride], self.labels[::stride], self.fields[::stride])


def to_unit(images: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def crops(images: Tensor, size: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """Random crops (B, C, size, size) in [-1, 1] of uint8 images; never flipped."""
    rows = torch.randint(len(images), (batch_size,), generator=generator)
    return crop(images, rows, size, generator)


def crop(images: Tensor, rows: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A random crop (B, C, size, size) in [-1, 1] of each of `rows` (B,) of uint8 images."""
    room = images.shape[-1] - size + 1
    corners = torch.randint(room, (len(rows), 2), generator=generator).tolist()
    picked = [
        images[row, :, top : top + size, left : left + size]
        for row, (top, left) in zip(rows.tolist(), corners, strict=True)
    ]
    return to_unit(torch.stack(picked))


def read_chest_xrays(
    folder: Path,
    split: str,
    size: int,
    report: Callable[[int, int], None] | None = None,
    healthy: bool = False,
) -> ChestXrays:
    """Read one split of `folder`/manifest.csv, each image cropped to a square without squashing.

    `healthy` reads only the images in which nothing was found.

    Raises:
        InvalidInput: there is no manifest, or no such row of that split.
    """
    manifest = folder / "manifest.csv"
    if not manifest.exists():
        raise InvalidInput(f"data is {folder}, which has no manifest.csv; name the folder with it")
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split and _is_large(row)]
    if healthy:
        rows = [row for row in rows if labels_of(row).normal]
    if not rows:
        what = "healthy row of it" if healthy else "such row"
        raise InvalidInput(f"split is {split!r}, but {manifest} has no {what} of usable size")
    images = np.empty((len(rows), 1, size, size), np.uint8)
    for i, row in enumerate(rows):
        images[i, 0] = _read(folder / row["file"], row, size)
        if report is not None:
            report(i + 1, len(rows))
    return ChestXrays(torch.from_numpy(images), [labels_of(row) for row in rows], rows)


def _is_large(row: dict[str, str]) -> bool:
    return min(int(row["width"]), int(row["height"])) >= MIN_STORED_SIDE


def _read(path: Path, row: dict[str, str], size: int) -> np.ndarray:
    original = None
    if row.get("orig_width") and row.get("orig_height"):
        original = (int(row["orig_height"]), int(row["orig_width"]))
    pixels = fit(read_image(path).pixels, size, orig_size=original)
    return np.round(pixels * 255).astype(np.uint8)
