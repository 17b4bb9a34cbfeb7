"""Labelled radiographs in memory at one size: real ones by patient, and synthetic ones."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.data.captions import Labels
from gen.data.collection import read_collection
from gen.data.images import read_image
from gen.data.notes import Notes
from gen.data.synthetic_set import Labelled, read_synthetic
from gen.data.transforms import fit
from gen.errors import InvalidInput, MedphantomError
from gen.models.cxr_classifier import statement_table
from gen.training.fractions import drawn_groups

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class LabelledImages:
    """`pixels` (N, 1, S, S) uint8, and of each its labels, its patient and its name."""

    pixels: Tensor
    labels: list[Labels]
    patients: list[str]
    names: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, rows: Iterable[int]) -> "LabelledImages":
        """Some of them, in the order of their rows."""
        chosen = list(rows)
        return LabelledImages(
            self.pixels[chosen],
            [self.labels[row] for row in chosen],
            [self.patients[row] for row in chosen],
            [self.names[row] for row in chosen],
        )

    def stated(self, classes: tuple[str, ...]) -> NDArray[np.float32]:
        """(N, K): 1 shown, 0 not shown, nan not spoken of."""
        return statement_table(self.labels, classes)

    def digests(self) -> list[bytes]:
        """Of each image's pixels."""
        return [hashlib.sha256(each.numpy().tobytes()).digest() for each in self.pixels]


def read_real_images(
    source: Path, split: str, side: int, notes: Notes, report: Report = lambda *_: None
) -> LabelledImages:
    """The labelled images of one split of a collection; one without a patient is its own.

    Raises:
        InvalidInput: there is no such split, or no labelled image of it can be read.
    """
    collection = read_collection(source, split)
    notes.take(f"{split}: {line}" for line in collection.omissions)
    known = [
        (Labelled(each.name, each.file, each.labels, each.orig_size), each.patient)
        for each in collection.items
        if each.labels is not None
    ]
    patients = {each.name: patient or f"file {each.name}" for each, patient in known}
    read = _read((each for each, _ in known), len(known), side, notes, report)
    if not read.names:
        raise InvalidInput(
            f"{source} has no labelled image of the split {split!r} that can be read; give more"
        )
    return LabelledImages(
        read.pixels, read.labels, [patients[name] for name in read.names], read.names
    )


def read_synthetic_images(
    source: Path, side: int, notes: Notes, report: Report = lambda *_: None
) -> LabelledImages:
    """The labelled images of a synthetic set; each is nobody's, and so a patient of its own.

    Raises:
        InvalidInput: see `gen.data.synthetic_set.read_synthetic`; or no image can be read.
    """
    found = _read(read_synthetic(source, notes), None, side, notes, report)
    if not found.names:
        raise InvalidInput(
            f"synthetic is {source}, which holds no labelled image that can be read:"
            f" {'; '.join(notes.lines()) or 'it is empty'}; name another set"
        )
    return found


def _read(
    images: Iterable[Labelled], total: int | None, side: int, notes: Notes, report: Report
) -> LabelledImages:
    pixels, labels, names = [], [], []
    for number, each in enumerate(images, 1):
        if total:
            report(number, total)
        try:
            stored = read_image(each.source).pixels
        except MedphantomError as error:
            notes.add("image(s) cannot be read", f"{each.name} ({error})")
            continue
        if min(stored.shape) < side:  # enlarged it would be blurred, and blur tells sources apart
            notes.add(f"image(s) are stored below {side} pixels a side, and left out", each.name)
            continue
        small = np.round(fit(stored, side, each.orig_size) * 255).astype(np.uint8)
        pixels.append(torch.from_numpy(small)[None])
        labels.append(each.labels)
        names.append(each.name)
    if names and not total:  # how many a stream holds is known when it ends
        report(len(names), len(names))
    stack = torch.stack(pixels) if pixels else torch.empty(0, 1, side, side, dtype=torch.uint8)
    return LabelledImages(stack, labels, names, names)


def rarest_finding(stated: NDArray[np.floating], patients: list[str]) -> NDArray[np.intp]:
    """Of each image (N,), the rarest class (K,) that any image of its patient shows, K for none.

    Shares of patients are drawn by it, so that a small share has its part of what is rare.
    """
    num_classes = stated.shape[1]
    order = np.append(np.argsort((stated == 1).sum(0), kind="stable"), num_classes)
    place = np.argsort(order)  # of each class, 0 the rarest
    shown = np.where(stated == 1, place[:num_classes], num_classes).min(1, initial=num_classes)
    _, codes = np.unique(np.array(patients), return_inverse=True)
    rarest = np.full(codes.max(initial=-1) + 1, num_classes)
    np.minimum.at(rarest, codes, shown)
    found: NDArray[np.intp] = order[rarest[codes]]
    return found


def draw_patients(
    stated: NDArray[np.floating], patients: list[str], share: float, seed: int
) -> NDArray[np.intp]:
    """Rows of a share of the patients of each `rarest_finding`, with all images of each.

    With one seed, a smaller share is part of a larger one.
    """
    _, codes = np.unique(np.array(patients), return_inverse=True)
    chosen = drawn_groups(rarest_finding(stated, patients), codes, share, seed)
    return np.flatnonzero(np.isin(codes, chosen))
