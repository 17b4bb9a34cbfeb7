"""What is asked for by level of rarity: images that a model scores, and draws to calibrate it.

A model of chest X-rays is asked about whole images under their prompts, `minority_chests.py`, a
patch model about crops of tissue under their embeddings, `minority_tissue.py`.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gen.guidance.minority import MinorityCalibration
from jobs.tasks.served import task_of

if TYPE_CHECKING:  # torch is imported when something is scored
    from pipelines.minority import MinoritySampling

OTHER = "other"  # kind of images that show nothing known, or too little of it for quantiles


@dataclass(frozen=True)
class Subject:
    """An image, or a part of one, that is scored.

    Args:
        name: no other has it; it decides the noise, and so the score.
        file: in which it is.
        kind: among which its score is ranked.
        place: where it lies in its file, as columns of the table.
    """

    name: str
    file: str
    kind: str
    place: dict[str, int | float] = field(default_factory=dict)


class Scorer(Protocol):
    """Scores subjects of a data set by a model."""

    subjects: list[Subject]
    weight_sha256: str
    settings: dict[str, Any]
    """What scores depend on, besides the model and `ScoresConfig.settings`."""

    def scores(self, names: Collection[str]) -> Iterator[dict[str, float]]:
        """Scores of the subjects of those names, some at a time; unusable ones are left out."""
        ...

    def omissions(self) -> list[str]:
        """A line for each reason for which something was left out so far."""
        ...


class Drawer(Protocol):
    """Draws images of what a model was not trained on, and says how rare they became."""

    num_images: int
    has_classifier: bool

    def levels(self, calibration: MinorityCalibration, sampling: "MinoritySampling") -> list[float]:
        """The level of each image, the same images for every sampling."""
        ...


def draws_tissue(model: str) -> bool:
    """Whether a model draws patches from embeddings, not images from words."""
    return task_of(model) == "embedding-to-image"
