"""The images of a run: real ones to learn from, choose by and be judged on, and synthetic ones."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen.errors import InvalidInput
from jobs.bars import Bars
from jobs.utility.config import UtilityConfig

if TYPE_CHECKING:  # torch is imported when something is read
    from gen.data.notes import Notes
    from gen.training.labelled_images import LabelledImages

TRAIN, VAL, TEST = "train", "val", "test"


@dataclass(frozen=True)
class Sets:
    """All images, the classes that are judged, those that cannot be, and what was left out."""

    train: "LabelledImages"
    val: "LabelledImages"
    test: "LabelledImages"
    synthetic: "LabelledImages"
    classes: tuple[str, ...]
    too_few: list[dict[str, Any]]
    omissions: list[str]


def read_sets(config: UtilityConfig, drawn: Bars) -> Sets:
    """Read all images at the classifier's size.

    Patients of `val` and `test` are not trained on: their other images are left out of `train`.

    Raises:
        InvalidInput: a split is missing, no class can be judged, a synthetic image is of another
            split than train, or is an image of `val` or `test`.
    """
    from gen.data.notes import Notes
    from gen.training.labelled_images import read_real_images, read_synthetic_images

    real, made = Notes(), Notes()
    synthetic = read_synthetic_images(
        config.synthetic, config.image_size, made, drawn.bar("reading synthetic images")
    )
    test, val, train = (
        read_real_images(
            config.data, split, config.image_size, real, drawn.bar(f"reading {split} images")
        )
        for split in (TEST, VAL, TRAIN)
    )
    check_not_held_out(synthetic, {VAL: val, TEST: test}, config.synthetic)
    val = _without(val, test.patients, VAL, real)
    train = _without(train, [*test.patients, *val.patients], TRAIN, real)
    classes, too_few = judged_classes(train, test, config.min_positives)
    omissions = [f"real: {line}" for line in real.lines()]
    omissions += [f"synthetic: {line}" for line in made.lines()]
    return Sets(train, val, test, synthetic, classes, too_few, omissions)


def _without(
    images: "LabelledImages", patients: Iterable[str], split: str, notes: "Notes"
) -> "LabelledImages":
    held = set(patients)
    kept = [row for row, patient in enumerate(images.patients) if patient not in held]
    for row in sorted(set(range(len(images))) - set(kept)):
        notes.add(
            f"image(s) of {split} are of patients that are held out, and left out",
            images.names[row],
        )
    if not kept:
        raise InvalidInput(f"every patient of {split} is held out too; split by patient")
    return images.part(kept)


def check_not_held_out(
    synthetic: "LabelledImages", held_out: dict[str, "LabelledImages"], source: Path
) -> None:
    """Refuse a synthetic set with the very image that a classifier is judged on.

    Raises:
        InvalidInput: there is one.
    """
    made = dict(zip(synthetic.digests(), synthetic.names, strict=True))
    for split, images in held_out.items():
        for digest, name in zip(images.digests(), images.names, strict=True):
            if digest in made:
                raise InvalidInput(
                    f"synthetic is {source}, whose {made[digest]} is the real image {name} of the"
                    f" split {split!r}; a classifier would be judged on what it learnt, so remove"
                    " it"
                )


def judged_classes(
    train: "LabelledImages", test: "LabelledImages", min_positives: int
) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """The classes with enough patients in `test`, and for each other one how many it has.

    Patients must be enough with the class and without it, among children or among adults.

    Raises:
        InvalidInput: there is no class.
    """
    from gen.data.captions import PHRASES

    names = tuple(PHRASES)
    learnt, judged = train.stated(names), test.stated(names)
    classes, too_few = [], []
    for column, name in enumerate(names):
        positives, negatives = _most(judged[:, column], test)
        if min(positives, negatives) >= min_positives and (learnt[:, column] == 1).any():
            classes.append(name)
        elif (judged[:, column] == 1).any():
            too_few.append(
                {
                    "class": name,
                    "test_patients_with": positives,
                    "test_patients_without": negatives,
                    "train_images_with": int((learnt[:, column] == 1).sum()),
                }
            )
    if not classes:
        raise InvalidInput(
            f"min_positives is {min_positives}, but no finding has as many patients with and"
            " without it in the split 'test' and any in 'train'; lower it or give more images"
        )
    return tuple(classes), too_few


def _most(stated: Any, images: "LabelledImages") -> tuple[int, int]:
    """Patients with a class and without it, of the population that has most of the fewer."""
    found = []
    for child in (False, True):
        counts = [
            len(
                {
                    patient
                    for patient, labels, each in zip(
                        images.patients, images.labels, stated, strict=True
                    )
                    if labels.child == child and each == value
                }
            )
            for value in (1, 0)
        ]
        found.append((counts[0], counts[1]))
    return max(found, key=min)
