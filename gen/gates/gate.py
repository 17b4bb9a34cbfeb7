"""What a quality gate is: it looks at a made image and says whether it may be kept, and why not.

A gate is a sampling process, so that the networks it asks share forwards with everything else.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from torch import Tensor

from gen.types import Component, Process


@dataclass(frozen=True)
class Subject:
    """What an image was made to be.

    Args:
        labels: names of `gen.data.captions` that it shall show.
        group: whom it shall show: "sex", "age_group" and "view", each if known.
        source: the name of the image it was made from; None if from none.
        patient: whose the source is.
        source_image: the pixels (1, 1, H, W) in [0, 1] of the source, if it was made from one.
        keeps_source: most of the source shall stay, as where a lesion is inserted or removed;
            likeness to it is then no fault.
    """

    labels: tuple[str, ...] = ()
    group: Mapping[str, str] = field(default_factory=dict)
    source: str | None = None
    patient: str | None = None
    source_image: Tensor | None = field(default=None, repr=False, compare=False)
    keeps_source: bool = False


@dataclass(frozen=True)
class Verdict:
    """What one gate says of one image.

    Args:
        gate: its name.
        passed: whether the image may be kept.
        score: the figure that decided, finite; None if nothing could be judged.
        threshold: where the line is, for this figure; None if nothing could be judged.
        reason: why it did not pass, as "what kind of fault: more on it"; None if it did.
        unjudged: what was asked for that the gate knows nothing of, such as rare findings.
    """

    gate: str
    passed: bool
    score: float | None
    threshold: float | None
    reason: str | None = None
    unjudged: tuple[str, ...] = ()

    @property
    def fault(self) -> str | None:
        """What kind of fault it is, for counting; None if it passed."""
        return None if self.reason is None else self.reason.partition(":")[0]

    def as_json(self) -> dict[str, Any]:
        """As a record keeps it."""
        return {**asdict(self), "unjudged": list(self.unjudged)}


class Gate(Protocol):
    """One kind of judgement; it has no state, so one object serves every image.

    `networks` are what its processes call, under names that no other component has.
    """

    @property
    def name(self) -> str:
        """Its name in verdicts, one word."""

    @property
    def networks(self) -> Mapping[str, Component]:
        """What `judge` calls, by name."""

    def judge(self, image: Tensor, about: Subject) -> Process[Verdict]:
        """Look at one image.

        Args:
            image: (1, 1, H, W), meant to be in [0, 1]; it may be anything, even not finite.
            about: what it shall be.
        """
