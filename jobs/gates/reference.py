"""The real images that gates learn from: what nothing made may copy, and others for thresholds."""

from dataclasses import dataclass
from pathlib import Path

from gen.data.collection import read_collection
from gen.encoders.encoder import Encoder
from gen.errors import InvalidInput
from jobs.audit.sets import ImageSet, read_set
from jobs.bars import Bars
from jobs.gates.config import GatesConfig


@dataclass(frozen=True)
class Reference:
    """Real images.

    Args:
        training: what made images may be no copies of.
        held_out: images of patients that `training` does not hold; the same set as `training`
            where it has no splits: each image is then looked up among other patients'.
        own: whether it is so.
        notes: what was left out or assumed.
    """

    training: ImageSet
    held_out: ImageSet
    own: bool
    notes: list[str]


def read_reference(config: GatesConfig, encoder: Encoder, cache: Path, bars: Bars) -> Reference:
    """Read and encode the images, most of which a cache holds.

    Raises:
        InvalidInput: the reference or one of its splits holds no image.
    """
    notes: list[str] = []
    listed = read_collection(config.reference)
    splits = {item.split for item in listed.items if item.split}
    if not splits:
        notes.append("the reference has no splits: thresholds are of each image among others'")
        every = read_set("reference", listed, encoder, cache, bars, notes)
        return Reference(every, every, True, notes)

    def read(split: str) -> ImageSet:
        part = read_collection(config.reference, split)
        return read_set(split, part, encoder, cache, bars, notes)

    training, held_out = read(config.train_split), read(config.held_out_split)
    known = set(training.patients)
    strangers = [row for row, name in enumerate(held_out.patients) if name not in known]
    if len(strangers) < len(held_out):
        notes.append(
            f"{len(held_out) - len(strangers)} images of {config.held_out_split} are of patients"
            f" of {config.train_split}, and set no threshold"
        )
    if not strangers:
        raise InvalidInput(
            f"held_out_split is {config.held_out_split!r}, all of whose patients are in"
            f" {config.train_split!r} too, but thresholds need others; name another split"
        )
    return Reference(training, held_out.part(strangers), False, notes)
