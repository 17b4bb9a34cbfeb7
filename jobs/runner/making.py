"""How an item is made, wherever it is: attempts that gates judge, and what is said of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gen.data.images import read_image
from gen.data.samples import TRAIN
from gen.errors import InvalidInput
from gen.gates.gate import Gate, Subject
from gen.gates.gated import Gated, gated
from gen.types import Process
from jobs.runner.items import Item
from jobs.runner.kinds import Files, Kind, kind_of
from jobs.runner.ledger import Judged
from jobs.runner.spec import JobSpec
from jobs.tasks.anomaly_map import PICTURE
from jobs.tasks.task import ItemSpec, Made, OnStep

if TYPE_CHECKING:
    from torch import Tensor

Attempt = tuple[ItemSpec, Any]  # what was asked for, and what the process returned


@dataclass(frozen=True)
class Making:
    """An item with all that it is made from.

    Args:
        spec: the task's, of this item alone.
    """

    kind: Kind
    job: JobSpec
    item: Item
    files: Files
    spec: Any

    def process(
        self,
        pipeline: Any,
        gates: Sequence[Gate],
        on_step: OnStep = lambda *_: None,
        *,
        keep_rejected: bool = False,
    ) -> Process[Gated[Attempt]]:
        """Attempts, each with a seed of its own; the first one's picture is decoded now."""
        task, job = self.kind.task, self.job
        (asked,) = task.items(self.spec, self.item.id)

        def make(attempt: int) -> Process[Attempt]:
            seeded = {**asked, "seed": self.item.seed(job.seed, attempt)}
            process = task.process(pipeline, self.spec, seeded, on_step)

            def run() -> Process[Attempt]:
                return seeded, (yield from process)

            return run()

        first = make(0)
        if not gates:
            return _ungated(first)
        return gated(
            lambda attempt: first if attempt == 0 else make(attempt),
            self._picture,
            gates,
            subject_of(self.item, self.files, getattr(self.spec, "operation", "")),
            job.max_attempts,
            keep_rejected=keep_rejected,
        )

    def encode(self, pipeline: Any, found: Gated[Attempt], settings: dict[str, Any]) -> Made:
        """The file of an accepted attempt, with the task's own record."""
        assert found.result is not None
        asked, result = found.result
        return self.kind.task.encode(pipeline, self.spec, asked, result, settings)

    def meta(self, made: Made, found: Gated[Attempt]) -> dict[str, Any]:
        """Of the sample, as `gen.data.samples.Sample` has it."""
        item, record = self.item, made.record
        source = self.files.get("image")
        return {
            "id": item.id,
            "synthetic": True,
            "split": TRAIN,
            "labels": list(item.labels),
            "prompt": item.prompt,
            "seed": record.get("seed"),
            "operation": record.get("settings", {}).get("operation", self.kind.operation),
            "model": record.get("model"),
            "weight_sha256": record.get("weight_sha256"),
            "source": item.image,
            "source_sha256": None if source is None else hashlib.sha256(source).hexdigest(),
            "group": item.group,
            "gates": [each.as_json() for each in found.attempts[-1]],
            "attempts": len(found.attempts),
            "record": record,
        }

    def rejected_png(self, found: Gated[Attempt]) -> bytes | None:
        """A small picture of the first attempt that was refused and kept; None if none was."""
        if not found.rejected:
            return None
        return self.kind.task.preview_png(self._picture(found.rejected[0]))

    def judged(self, found: Gated[Attempt]) -> Judged:
        """What the gates said."""
        return Judged(
            id=self.item.id,
            labels=self.item.labels,
            group=self.item.group,
            accepted=found.result is not None,
            attempts=[[each.as_json() for each in attempt] for attempt in found.attempts],
        )

    def _picture(self, attempt: Attempt) -> "Tensor":
        picture = self.kind.task.picture(attempt[1])
        if picture is None:
            raise InvalidInput(f"gates cannot judge what {self.kind.task.name} makes; drop them")
        return picture


def making_of(job: JobSpec, item: Item, files: Files) -> Making:
    """An item about to be made.

    Raises:
        InvalidInput: the row lacks something, or breaks a rule.
    """
    kind = kind_of(job.task)
    return Making(kind, job, item, files, kind.check(job, item, files))


def subject_of(item: Item, files: Files, operation: str) -> Subject:
    """What the gates are told of an item; its source is decoded."""
    source = None
    if "image" in files:
        pixels = read_image(files["image"], PICTURE).pixels
        source = torch.from_numpy(pixels)[None, None]
    kept = operation in ("insert", "remove", "classical")
    return Subject(item.labels, item.group, item.image, item.patient, source, kept)


def refusal(found: Gated[Any]) -> str:
    """Why the last attempt was refused."""
    said = [f"{each.gate}: {each.reason}" for each in found.attempts[-1] if not each.passed]
    return f"given up after {len(found.attempts)} attempts; the last one: {'; '.join(said)}"


def _ungated(process: Process[Attempt]) -> Process[Gated[Attempt]]:
    return Gated((yield from process), ((),))
