"""Items: the results that rows become, each with the name and the seeds that its id decides."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jobs.runner.rows import Row
from jobs.tasks.task import seed_of

ITEMS = "items"


@dataclass(frozen=True)
class Item:
    """One result to make.

    Args:
        id: of its row, and which of the row's results it is.
        key: its name in every format, see `gen.data.samples.Sample`.
        error: why it cannot be made, known from its row.
        fields: of the task's spec, which are its row's own.
        seeds: those of attempts; see `seed`.
    """

    id: str
    key: str
    error: str | None = None
    prompt: str | None = None
    image: str | None = None
    mask: str | None = None
    labels: tuple[str, ...] = ()
    group: dict[str, str] = field(default_factory=dict)
    patient: str | None = None
    first_seed: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)

    def seed(self, job_seed: int, attempt: int) -> int:
        """Of an attempt, from 0; nothing but the job's seed and the id decides it."""
        if attempt == 0 and self.first_seed is not None:
            return self.first_seed
        return seed_of(f"{job_seed}/{self.id}", attempt)

    def as_json(self) -> dict[str, Any]:
        """Without what is empty."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {}, ())}

    def to_line(self) -> str:
        """As a line of JSON."""
        return json.dumps(self.as_json(), sort_keys=True) + "\n"


def from_line(line: str) -> Item:
    """Undo `Item.to_line`."""
    return item_from(json.loads(line))


def item_from(fields: dict[str, Any]) -> Item:
    """Undo `Item.as_json`."""
    return Item(**{**fields, "labels": tuple(fields.get("labels", ()))})


def items_of(row: Row, n: int) -> Iterator[Item]:
    """The results of a row; one that cannot be read is one item, which says why."""
    if row.error is not None:
        yield Item(row.id, key_of(row.id), row.error)
        return
    for copy in range(n if row.n is None else row.n):
        name = row.id if copy == 0 else f"{row.id}#{copy}"
        yield Item(
            name,
            key_of(name),
            prompt=row.prompt,
            image=row.image,
            mask=row.mask,
            labels=row.labels,
            group=row.group,
            patient=row.patient,
            first_seed=None if row.seed is None else (row.seed + copy) % 2**63,
            fields=row.fields,
        )


def key_of(name: str) -> str:
    """A name of safe letters that people can still tell, and that no other id has."""
    words = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[-60:]
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{words}-{digest}" if words else digest


def items_file(out: Path, shard: int) -> Path:
    """Where the items of a shard lie."""
    return out / ITEMS / f"items-{shard:06d}.jsonl"


def read_items(out: Path, shard: int) -> Iterator[Item]:
    """The frozen items of a shard."""
    with items_file(out, shard).open(encoding="utf-8") as stream:
        for line in stream:
            yield from_line(line)
