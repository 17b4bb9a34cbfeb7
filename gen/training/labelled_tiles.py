"""Labelled tiles of stained tissue in memory, some to train on and some held out.

Copies of one picture are all on one side: a training tile that is a copy of a held-out one is left
out.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gen.data.images import read_colour
from gen.data.manifest import MANIFEST, inside
from gen.errors import InvalidInput, MedphantomError
from gen.training.fractions import drawn_groups

HELD_OUT_SHARE = 0.25  # of the groups of each class, where a manifest has no splits
TRAIN = "train"


@dataclass(frozen=True)
class LabelledTiles:
    """N tiles: `pixels` (S, S, 3) uint8 as stored, `classes` by name, `labels` (N,) among them.

    `splits` are the manifest's, one a tile, or all empty if it has none; `omissions` has a line for
    each kind of tile that was left out.
    """

    pixels: list[NDArray[np.uint8]]
    labels: NDArray[np.intp]
    splits: list[str]
    classes: tuple[str, ...]
    omissions: list[str]

    def __len__(self) -> int:
        return len(self.pixels)

    def at(self, side: int) -> Tensor:
        """(N, 3, side, side) uint8."""
        return torch.stack([shrink(each, side) for each in self.pixels])


def shrink(pixels: NDArray[np.uint8], side: int) -> Tensor:
    """(3, side, side) uint8 of a square (S, S, 3)."""
    small = Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(small)).movedim(-1, 0)


def read_labelled_tiles(data: Path, pattern: str, label: str) -> LabelledTiles:
    """Tiles that a manifest labels; of one that is not square, the middle.

    Args:
        data: a folder with manifest.csv, or such a table itself.
        pattern: of the files, such as 'lc25000/*'.
        label: the column with each tile's class; it may be any, and have any names.

    Raises:
        InvalidInput: the table cannot be read, lacks a column, or has fewer than two classes.
        UnsafeFile: a path leaves the folder.
    """
    table = data / MANIFEST if data.is_dir() else data
    rows = [row for row in _rows_of(table, label) if fnmatch(row["file"], pattern)]
    kept: list[tuple[NDArray[np.uint8], str, str]] = []
    left_out: dict[str, list[str]] = {}
    for row in rows:
        name, split = row[label], row.get("split") or ""
        path = inside(table.parent, row["file"])
        try:
            pixels = read_colour(path) if name else None
        except MedphantomError:
            left_out.setdefault("cannot be read", []).append(row["file"])
            continue
        if pixels is None:
            left_out.setdefault("have no label", []).append(row["file"])
        else:
            kept.append((_middle(pixels), name, split))
    classes = tuple(sorted({name for _, name, _ in kept}))
    if len(classes) < 2:
        raise InvalidInput(
            f"{table} has {len(rows)} files like {pattern!r}, of {len(classes)} classes by its"
            f" column {label!r}, but a classifier needs two; name another pattern or column"
        )
    return LabelledTiles(
        [pixels for pixels, _, _ in kept],
        np.array([classes.index(name) for _, name, _ in kept], np.intp),
        [split for _, _, split in kept],
        classes,
        [f"{len(names)} tile(s) {why}; the first: {names[0]}" for why, names in left_out.items()],
    )


def _rows_of(table: Path, label: str) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"data is {table}, which cannot be read as a table; name a folder with {MANIFEST}"
        ) from error
    for column in ("file", label):
        if rows and column not in rows[0]:
            raise InvalidInput(
                f"{table} has no column {column!r}, only: {', '.join(rows[0])}; name one of them"
            )
    return rows


def _middle(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


@dataclass(frozen=True)
class Split:
    """Indices of tiles to train on and held out; `num_copies` more are copies of held-out ones."""

    train: NDArray[np.intp]
    held_out: NDArray[np.intp]
    num_copies: int


def split_tiles(tiles: LabelledTiles, groups: Sequence[int], seed: int = 0) -> Split:
    """By the manifest, held out being all that it does not call `train`, or drawn by class.

    Args:
        tiles: N of them.
        groups: N numbers, equal where tiles are copies of one another.
        seed: of the draw, where the manifest has no splits.

    Raises:
        InvalidInput: a class has no tile on one of the sides.
    """
    numbers = np.array(groups)
    if TRAIN in tiles.splits and any(each != TRAIN for each in tiles.splits):
        train = np.array([each == TRAIN for each in tiles.splits])
    else:
        train = ~np.isin(numbers, drawn_groups(tiles.labels, numbers, HELD_OUT_SHARE, seed))
    copies = train & np.isin(numbers, numbers[~train])
    sides = np.flatnonzero(train & ~copies), np.flatnonzero(~train)
    for name, chosen in zip(("to train on", "held out"), sides, strict=True):
        missing = sorted(set(range(len(tiles.classes))) - set(tiles.labels[chosen].tolist()))
        if missing:
            raise InvalidInput(
                f"there is no tile of {tiles.classes[missing[0]]!r} {name}, once copies are left"
                " out; give more tiles, or a split of whole classes in the manifest"
            )
    return Split(*sides, int(copies.sum()))
