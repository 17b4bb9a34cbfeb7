"""Is it a copy of a training image, or of the image it was made from?

Candidates are looked up by an encoder's features and by coarse structure, then each is laid over
the image (`gen.metrics.copies`). The threshold is chosen on real images of patients that the
training set does not hold: whatever they share with a training image is no copy.
"""

from collections.abc import Mapping, Sequence

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from gen.encoders.encoder import Encoder
from gen.errors import InvalidInput
from gen.gates.gate import Subject, Verdict
from gen.gates.pixels import pixels_of, thumbnail
from gen.metrics.aligned import detail, similarity, templates_of
from gen.metrics.calibration import Calibration
from gen.metrics.copies import Described, TrainingIndex, match
from gen.types import Component, ModelCall, Process

SIDE = 128  # of pictures that are laid over one another
NETWORK = "gates.encoder"


class CopiesCalibration(BaseModel):
    """From which similarity on an image is a copy; with the encoder that the index is of."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    encoder: str
    num_images: int
    calibration: Calibration


class CopiesGate:
    """Refuses what is more like a training image, or its source, than real images ever are.

    Where `Subject.keeps_source`, likeness to the source and to other images of its patient counts
    for nothing.

    Args:
        index: of the training images.
        names: theirs, in the order of the index.
        encoder: which the index's features are of.
        threshold: similarity above which an image is a copy.

    Raises:
        InvalidInput: there is not a name for each image.
    """

    name = "copies"

    def __init__(
        self, index: TrainingIndex, names: Sequence[str], encoder: Encoder, threshold: float
    ) -> None:
        if len(names) != len(index.patients):
            raise InvalidInput(
                f"there are {len(names)} names, but the index holds {len(index.patients)} images;"
                " name each"
            )
        self.index, self.names, self.encoder = index, tuple(names), encoder
        self.threshold = threshold
        self.networks: Mapping[str, Component] = {NETWORK: encoder.encode}
        self._rows = {name: row for row, name in enumerate(names)}

    def judge(self, image: Tensor, about: Subject) -> Process[Verdict]:
        """See `gen.gates.gate.Gate`."""
        prepared = torch.from_numpy(self.encoder.prepare(pixels_of(image)))[None, None]
        features = yield ModelCall(NETWORK, (torch.cat([prepared, prepared.flip(-1)]),))
        features = features.double().cpu()
        picture = thumbnail(image, SIDE)
        described = Described(picture, features[:1].numpy(), features[1:].numpy())
        found = match(described, self.index, self._exempt(about))
        score, row = float(found.scores[0]), int(found.rows[0])
        what, name = "copy of a training image", self.names[row] if row >= 0 else ""
        source = self._similarity_to_source(picture, about)
        if source > score:
            score, what, name = source, "copy of its source", about.source or "without a name"
        passed = score <= self.threshold
        reason = (
            f"{what}: {score:.2f} to {name}; real images of other patients stay below"
            f" {self.threshold:.2f}"
        )
        return Verdict(self.name, passed, score, self.threshold, None if passed else reason)

    def _exempt(self, about: Subject) -> list[str] | None:
        """The patient, as the index knows them, whom the image may be like."""
        row = self._rows.get(about.source or "")
        patient = about.patient if row is None else self.index.patients[row]
        return [patient] if about.keeps_source and patient is not None else None

    def _similarity_to_source(self, picture: Tensor, about: Subject) -> float:
        """-1 if it was made from none, or shall keep it."""
        row = self._rows.get(about.source or "")
        if about.keeps_source or (about.source_image is None and row is None):
            return -1.0
        if about.source_image is not None:
            details = detail(thumbnail(about.source_image, SIDE))
        else:
            details = self.index.details[row].float()[None]
        return float(similarity(templates_of(picture), details[:, None])[0, 0])
