"""What gates said of every attempt, as the notes beside a job's shards hold it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter

from gen.errors import InvalidInput
from gen.gates.gate import Verdict

SHARDS = "shards"


class JudgedItem(BaseModel):
    """One item: what it should be, and every gate's verdict on each attempt, in order."""

    model_config = ConfigDict(frozen=True)

    id: str
    labels: tuple[str, ...]
    group: dict[str, str]
    accepted: bool
    attempts: tuple[tuple[Verdict, ...], ...]

    @property
    def passed_first(self) -> bool:
        """Whether the first attempt was accepted."""
        return self.accepted and len(self.attempts) == 1


_JUDGED: TypeAdapter[list[JudgedItem]] = TypeAdapter(list[JudgedItem])


def read_judged(out: Path) -> Iterator[JudgedItem]:
    """The judged items of a job's folder, shard after shard.

    Raises:
        InvalidInput: the folder has no shards, or the note of one is damaged.
    """
    notes = sorted((out / SHARDS).glob("shard-*.json"))
    if not notes:
        raise InvalidInput(f"{out} holds no shards of a data set job; name the folder of its spec")
    for path in notes:
        try:
            note: dict[str, Any] = json.loads(path.read_bytes())
            yield from _JUDGED.validate_python(note.get("judged", []))
        except ValueError as error:
            raise InvalidInput(f"{path} is damaged; run the job again to mend it") from error
