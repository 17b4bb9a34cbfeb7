"""The sets of images that an audit compares: listed, read once, and described by an encoder."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gen.data.captions import Labels
from gen.data.collection import Collection, Item, read_collection
from gen.data.images import stored_size
from gen.encoders.encoder import Encoder
from gen.errors import MedphantomError
from gen.metrics.feature_cache import encode_collection
from jobs.audit.schema import SetOfImages
from jobs.bars import Bars

PREVIEW_SIDE = 128  # smaller real files are previews, blurred at any size that figures are taken at
NAMED = 3  # files that an omission names


@dataclass(frozen=True)
class ImageSet:
    """Images of one set that could be read.

    Args:
        name: of their folder or table.
        items: N.
        features: (N, D).
        sides: (N,) shorter side of each stored file in pixels.
    """

    name: str
    items: list[Item]
    features: NDArray[np.float32]
    sides: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def labels(self) -> list[Labels | None]:
        """Of each image; None is unknown."""
        return [item.labels for item in self.items]

    @cached_property
    def patients(self) -> list[str]:
        """Whose each image is; of nobody known, its own."""
        return [item.patient or f"file {item.file}" for item in self.items]

    def part(self, rows: Sequence[int] | NDArray[np.integer]) -> "ImageSet":
        """Some of the images."""
        chosen = [self.items[row] for row in rows]
        return ImageSet(self.name, chosen, self.features[rows], self.sides[rows])

    def describe(self, *, real: bool) -> SetOfImages:
        """For audit.json."""
        patients = len(set(self.patients)) if real else None
        return SetOfImages(name=self.name, images=len(self), patients=patients)

    @cached_property
    def digest(self) -> str:
        """Of everything figures are made from."""
        text = repr([(i.name, i.prompt, i.labels, i.patient, i.orig_size) for i in self.items])
        return hashlib.sha256(text.encode() + self.features.tobytes()).hexdigest()


@dataclass(frozen=True)
class Inputs:
    """What sections are measured on.

    Args:
        synthetic: the set that is judged.
        real: images that nothing was trained on, of which `real` patients' floors are.
        train: what the generator was trained on; None if nobody says.
        encoder: of all features.
        cache: folder of features.
        bars: where progress is drawn.
        omissions: lines on what was left out or assumed; sections add to them.
        seed: of every draw.
    """

    synthetic: ImageSet
    real: ImageSet
    train: ImageSet | None
    encoder: Encoder
    cache: Path
    bars: Bars
    omissions: list[str]
    seed: int = 0


@dataclass(frozen=True)
class Source:
    """Where a set is listed, and which split of it is meant; None: `usual`, where there is one."""

    path: Path
    split: str | None = None


def read_inputs(
    synthetic: Path,
    real: Source,
    train: Source | None,
    encoder: Encoder,
    cache: Path,
    bars: Bars,
    seed: int = 0,
) -> Inputs:
    """Read all sets. Without `train`, the rows of `real` that are called so are it.

    Raises:
        InvalidInput: a source cannot be read or holds no image.
    """
    omissions: list[str] = []

    def read(what: str, collection: Collection) -> ImageSet:
        return read_set(what, collection, encoder, cache, bars, omissions)

    judged = read("synthetic", read_collection(synthetic))
    compared = read("real", _listed("real", real, "test", omissions))
    if train is None and "train" in _splits(real.path):
        omissions.append(f"train: not named, so the rows of {real.path.name} that are called so")
        train = Source(real.path, "train")
    searched = None if train is None else read("train", _listed("train", train, "train", omissions))
    compared = _without_previews(compared, judged, omissions)
    return Inputs(judged, compared, searched, encoder, cache, bars, omissions, seed)


def _splits(path: Path) -> set[str]:
    return {item.split for item in read_collection(path).items if item.split}


def _listed(what: str, source: Source, usual: str, omissions: list[str]) -> Collection:
    split = source.split
    if split is None and usual in (known := _splits(source.path)):
        split = usual
        others = ", ".join(sorted(known - {usual})) or "none"
        omissions.append(f"{what}: only the rows of split {usual}; other splits: {others}")
    return read_collection(source.path, split)


def read_set(
    what: str,
    collection: Collection,
    encoder: Encoder,
    cache: Path,
    bars: Bars,
    omissions: list[str],
) -> ImageSet:
    """Features of the images that can be read; a line of `omissions` says which cannot."""
    items = collection.items
    omissions += [f"{what}: {line}" for line in collection.omissions]
    encoded = encode_collection(items, encoder, cache, bars.bar(f"features of {what} images"))
    if encoded.errors:
        first = "; ".join(encoded.errors[:NAMED])
        omissions.append(
            f"{what}: {len(encoded.errors)} of {len(items)} images could not be read: {first}"
        )
    kept = [items[row] for row in encoded.rows]
    if what != "synthetic" and all(item.patient is None for item in kept):
        omissions.append(f"{what}: no patients are named, so each image counts as one")
    sides = np.array([_side(item) for item in kept])
    return ImageSet(collection.root.name, kept, encoded.features, sides)


def _side(item: Item) -> int:
    try:
        return min(stored_size(item.file))
    except MedphantomError:  # it was read a moment ago, or from the cache
        return 0


def _without_previews(real: ImageSet, synthetic: ImageSet, omissions: list[str]) -> ImageSet:
    """Real images without those that are smaller than what they are compared with."""
    least = min(PREVIEW_SIDE, int(np.median(synthetic.sides)))
    large = np.flatnonzero(real.sides >= least)
    if len(large) < len(real):
        omissions.append(
            f"real: {len(real) - len(large)} of {len(real)} images have fewer than {least} pixels a"
            " side and are not compared with"
        )
    return real.part(large) if len(large) else real
