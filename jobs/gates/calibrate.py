"""Teach gates what real images are like, once for a reference; later jobs find it in a folder."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gen.encoders.encoder import Encoder
from gen.encoders.loading import load_encoder
from gen.errors import InvalidInput
from gen.gates import sanity
from gen.gates.calibration import VERSION, GateCalibration, read_calibration, write_calibration
from gen.gates.copies import CopiesCalibration
from gen.gates.labels import LabelsCalibration, calibrate_labels
from gen.gates.sanity import SanityCalibration, calibrate_sanity
from gen.metrics.alignment import Classifier, load_classifier
from gen.metrics.calibration import Calibration, calibrate, least_rate
from gen.metrics.feature_cache import Thumbnails, encode_collection, read_thumbnails
from jobs.audit.schema import Planted
from jobs.audit.search import RATES, Search
from jobs.audit.sets import ImageSet
from jobs.audit.stages import Stages
from jobs.bars import Bars
from jobs.gates.config import CopiesConfig, GatesConfig, LabelsConfig, SanityConfig
from jobs.gates.index_file import INDEX, write_index
from jobs.gates.reference import Reference, read_reference

CALIBRATION, PLANTED = "gates.json", "planted.json"
DEFAULT_ENCODER = CopiesConfig().encoder  # describes the images where no copies are looked for


def calibrate_gates(config: GatesConfig, cache: Path, bars: Bars) -> Path:
    """The folder that holds what the gates have learnt; made unless the cache has it.

    It has `gates.json`, the `GateCalibration`; and, if copies are looked for, `planted.json`, the
    recall of known copies, and an index of the training images. It holds patients' images: keep it
    as you keep those.

    Args:
        config: which gates, and of which images.
        cache: a folder of features and calibrations, made if missing; jobs may share it.
        bars: where progress is drawn.

    Raises:
        InvalidInput: the reference cannot be read, or holds too few images for a gate that is on.
    """
    encoder = load_encoder(config.copies.encoder if config.copies else DEFAULT_ENCODER)
    classifier = load_classifier(config.labels.classifier) if config.labels else None
    reference = read_reference(config, encoder, cache, bars)
    digest = _digest(config, reference, encoder, classifier)
    folder = cache / "gates" / digest[:24]
    if (folder / CALIBRATION).is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    stages = Stages(cache / "stages", digest, lambda name: bars.say(f"calibrating gates: {name}"))
    search = Search(reference.training, encoder, cache, stages, bars, config.seed)
    found = _copies(config.copies, search, reference, folder) if config.copies else None
    pixels = _sanity(config.sanity, search, reference, bars, config.seed) if config.sanity else None
    calibration = GateCalibration(
        reference=config.reference.name,
        digest=digest,
        training=len(reference.training),
        held_out=len(reference.held_out),
        sanity=pixels,
        copies=found,
        labels=_labels(config.labels, classifier, reference, cache, bars, config.seed),
        notes=tuple(reference.notes),
    )
    write_calibration(folder / CALIBRATION, calibration)
    return folder


def calibration_of(folder: Path) -> GateCalibration:
    """What `calibrate_gates` wrote."""
    return read_calibration(folder / CALIBRATION)


def _digest(
    config: GatesConfig, reference: Reference, encoder: Encoder, classifier: Classifier | None
) -> str:
    """Of everything that thresholds depend on, where the images lie aside."""
    settings = config.model_dump(mode="json", exclude={"reference"})
    sets = [reference.training, reference.held_out]
    parts = [
        VERSION, settings, encoder.id, classifier and classifier.encoder.id,
        *(each.digest for each in sets), [each.split for s in sets for each in s.items],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _sanity(
    config: SanityConfig, search: Search, reference: Reference, bars: Bars, seed: int
) -> SanityCalibration:
    training, _ = _full_size(reference.training, search.thumbnails)
    known = read_thumbnails(
        reference.held_out.items, sanity.SIDE, bars.bar("pictures of other patients")
    )
    others, patients = _full_size(reference.held_out, known)
    reference.notes.append(
        f"sanity: {len(training)} training and {len(others)} held-out images have"
        f" {sanity.SIDE} pixels a side or more, and say what is usual"
    )
    found: list[SanityCalibration] = []

    def at(rate: float) -> Calibration:
        found.append(calibrate_sanity(training, others, patients, rate, seed))
        return found[-1].calibration

    _least(at, config.false_alarm_rate, "sanity", reference.notes)
    return found[-1]


def _full_size(images: ImageSet, known: Thumbnails) -> tuple[Tensor, list[str]]:
    """Thumbnails that were not enlarged, which would lack detail, and their patients."""
    large = torch.from_numpy(~known.enlarged)
    return known.images[large], images.part(known.rows[~known.enlarged]).patients


def _copies(
    config: CopiesConfig, search: Search, reference: Reference, folder: Path
) -> CopiesCalibration:
    held_out = reference.held_out
    trained_on = [] if reference.own else sorted(set(reference.training.patients))
    scores = search.matches("held-out", held_out, of_patients=reference.own)

    def at(rate: float) -> Calibration:
        return calibrate(scores, held_out.patients, trained_on, rate, search.seed)

    calibration = _least(at, config.false_alarm_rate, "copies", reference.notes)
    planted: dict[str, Planted] = {}
    if config.planted:
        planted = search.planted(calibration, config.planted)
    text = json.dumps({name: each.model_dump() for name, each in planted.items()}, indent=1)
    (folder / PLANTED).write_text(text, encoding="utf-8")
    names = [search.searched.items[row].name for row in search.thumbnails.rows]
    write_index(folder / INDEX, search.index, names)
    return CopiesCalibration(
        encoder=search.encoder.id, num_images=len(names), calibration=calibration
    )


def _least(
    at: Callable[[float], Calibration], asked: float, gate: str, notes: list[str]
) -> Calibration:
    """At the rate that was asked for, or the first higher one that there are images for."""
    try:
        found = least_rate(at, [asked, *(rate for rate in RATES if rate > asked)])
    except InvalidInput as error:
        raise InvalidInput(
            f"gate {gate} finds no threshold: {error}; name a reference of more patients, or turn"
            " the gate off"
        ) from error
    if found.false_alarm_rate > asked:
        notes.append(
            f"{gate}: {found.num_images} held-out images are too few for false alarms of"
            f" {asked:.0%}; the threshold allows {found.false_alarm_rate:.0%}"
        )
    return found


def _labels(
    config: LabelsConfig | None,
    classifier: Classifier | None,
    reference: Reference,
    cache: Path,
    bars: Bars,
    seed: int,
) -> LabelsCalibration | None:
    if config is None or classifier is None:
        return None
    images = reference.held_out
    labelled = images.part([row for row, each in enumerate(images.labels) if each is not None])
    if not len(labelled):
        raise InvalidInput(
            "gate labels finds no held-out image with labels; name a reference that has some, or"
            " turn the gate off"
        )
    report = bars.bar("what a classifier sees in real images")
    found = encode_collection(labelled.items, classifier.encoder, cache, report)
    judged = labelled.part(found.rows)
    labels = [each for each in judged.labels if each is not None]
    return calibrate_labels(
        found.features, labels, judged.patients, classifier, config.true_positive_rate, seed
    )
