"""Synthetic images with their labels, from the formats they are kept in, for a classifier to learn.

Synthetic images may be trained on and never tested on, so one that says it belongs to another split
than `train` is refused, not skipped.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen.data.captions import PHRASES, Labels
from gen.data.collection import read_collection
from gen.data.limits import Source
from gen.data.notes import Notes
from gen.data.prompt_labels import labels_in
from gen.data.samples import TRAIN, Sample, read_tar
from gen.errors import InvalidInput

SHARDS = "shards"
_SEX = {"female": "F", "male": "M", "F": "F", "M": "M"}


@dataclass(frozen=True)
class Labelled:
    """One image: its name, its file or content, its labels, and how it was squashed if it was."""

    name: str
    source: Source
    labels: Labels
    orig_size: tuple[int, int] | None = None


def read_synthetic(source: Path, notes: Notes) -> Iterator[Labelled]:
    """The labelled images of a set, one at a time.

    Args:
        source: a folder of shards as data set jobs write it, one of its tar files, or whatever
            `gen.data.collection.read_collection` reads.
        notes: told what is left out or assumed.

    Raises:
        InvalidInput: the set is none of these or empty, or an image is of another split than train.
    """
    shards = _shards(source)
    if shards is None:
        return _from_collection(source, notes)
    return (each for shard in shards for each in _from_shard(shard, notes))


def _shards(source: Path) -> list[Path] | None:
    """The tar files of a set; None if it has none."""
    if source.is_file():
        return [source] if source.suffix == ".tar" else None
    for folder in (source / SHARDS, source):
        if found := sorted(folder.glob("*.tar")):
            return found
    return None


def _from_shard(shard: Path, notes: Notes) -> Iterator[Labelled]:
    for sample in read_tar(shard):
        name = f"{shard.name}/{sample.key}"
        _check_split(name, sample.meta.get("split"))
        labels = labels_of_sample(sample, notes)
        if labels is not None:
            yield Labelled(name, sample.files[sample.picture], labels)


def _from_collection(source: Path, notes: Notes) -> Iterator[Labelled]:
    collection = read_collection(source)
    notes.take(collection.omissions)
    for item in collection.items:
        _check_split(item.name, item.split)
        if item.labels is not None:
            yield Labelled(item.name, item.file, item.labels, item.orig_size)


def _check_split(name: str, split: Any) -> None:
    if split not in (None, "", TRAIN):
        raise InvalidInput(
            f"synthetic holds {name} of the split {split!r}, but only images of the split"
            f" {TRAIN!r} may be learnt from; name a set that was made for training"
        )


def labels_of_sample(sample: Sample, notes: Notes) -> Labels | None:
    """What a sample shows by its row: its labels, otherwise what its prompt asks for."""
    meta, group = sample.meta, sample.meta.get("group") or {}
    names = tuple(sorted(meta.get("labels") or ()))
    unknown = [name for name in names if name not in PHRASES]
    if unknown:
        notes.add(
            "sample(s) have a label that gen.data.captions has no name for, and are left out",
            f"{sample.key} ({unknown[0]})",
        )
        return None
    if names:
        return Labels(
            names, _text(group, "view"), None, _SEX.get(_text(group, "sex") or ""),
            _text(group, "age_group") == "child",
        )  # fmt: skip
    if not meta.get("prompt"):
        notes.add("sample(s) have neither labels nor a prompt, and are left out", sample.key)
        return None
    notes.add(
        "sample(s) take their labels from their prompts, where no known finding means normal",
        sample.key,
    )
    return labels_in(meta["prompt"])


def _text(group: Mapping[str, Any], name: str) -> str | None:
    return str(group[name]) if group.get(name) else None
