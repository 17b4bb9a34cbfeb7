"""From the settings of a job to its gates."""

from pathlib import Path

from gen.encoders.encoder import Encoder
from gen.encoders.loading import load_encoder
from gen.errors import InvalidInput
from gen.gates.copies import CopiesGate
from gen.gates.gate import Gate
from gen.gates.labels import LabelsGate
from gen.gates.sanity import SanityGate
from gen.metrics.alignment import load_classifier
from jobs.gates.calibrate import calibration_of
from jobs.gates.config import GatesConfig
from jobs.gates.index_file import INDEX, read_index


def load_gates(config: GatesConfig, folder: Path, device: str | None = None) -> list[Gate]:
    """The gates that are on, with their networks in memory; the cheapest first.

    Args:
        config: as the folder was made with.
        folder: of `jobs.gates.calibrate.calibrate_gates`, which one process makes for all.
        device: of the networks; None is a GPU if there is one.

    Raises:
        InvalidInput: the folder is damaged, or of other models than are at hand.
    """
    known = calibration_of(folder)
    gates: list[Gate] = []
    if config.sanity and known.sanity:
        gates.append(SanityGate(known.sanity))
    if config.labels and known.labels:
        gates.append(LabelsGate(load_classifier(config.labels.classifier, device), known.labels))
    if config.copies and known.copies:
        encoder = load_encoder(config.copies.encoder, device)
        _check(encoder, known.copies.encoder)
        index, names = read_index(folder / INDEX)
        threshold = known.copies.calibration.threshold.value
        gates.append(CopiesGate(index, names, encoder, threshold))
    return gates


def _check(encoder: Encoder, known: str) -> None:
    if encoder.id != known:
        raise InvalidInput(
            f"encoder is {encoder.id}, but the index of training images is of {known}; calibrate"
            " anew"
        )
