"""The shards of a job and what is known of each: there, whole, or still to be made.

A shard is a tar of samples beside a note with its digest. The note is written after the tar was
renamed into place, so whatever dies in between leaves a shard that is made again, with the same
bytes.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from gen.data.atomic import atomic_file
from gen.data.samples import Sample, write_tar
from gen.errors import InvalidInput
from jobs.runner.items import Item
from jobs.runner.spec import Job

SHARDS = "shards"
_READERS = 4  # digests are found beside one another: hashing lets go of the interpreter


class Failure(BaseModel):
    """An item that could not be made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    key: str
    reason: str
    attempts: int = 0


class Judged(BaseModel):
    """What the gates said of the attempts of an item, in their order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    labels: tuple[str, ...]
    group: dict[str, str]
    accepted: bool
    attempts: list[list[dict[str, Any]]]


class Shard(BaseModel):
    """The note of a shard.

    Args:
        sha256, num_bytes: of its tar.
        spec_sha256: of the job that it is of.
        num_made: samples in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shard: int
    sha256: str
    num_bytes: int
    spec_sha256: str
    num_made: int
    failures: list[Failure]
    judged: list[Judged] = []

    @property
    def num_failed(self) -> int:
        """Items that could not be made."""
        return len(self.failures)


def tar_file(out: Path, shard: int) -> Path:
    """Where the samples of a shard lie."""
    return out / SHARDS / f"shard-{shard:06d}.tar"


def note_file(out: Path, shard: int) -> Path:
    """Where its note lies."""
    return tar_file(out, shard).with_suffix(".json")


def write_shard(out: Path, job: Job, shard: int, make: "Making") -> Shard:
    """Write the samples that are made, and then the note.

    Args:
        make: given what notes failures and verdicts, yields the samples.

    Raises:
        OSError: the disk is full or gone. Nothing can be seen of the shard then.
    """
    log = ShardLog()
    path = tar_file(out, shard)
    num_made = 0

    def counted() -> Iterator[Sample]:
        nonlocal num_made
        for sample in make(log):
            num_made += 1
            yield sample

    with atomic_file(path, overwrite=True) as stream:
        write_tar(stream, counted())
    with path.open("rb") as written:
        sha256 = hashlib.file_digest(written, "sha256").hexdigest()
    note = Shard(
        shard=shard,
        sha256=sha256,
        num_bytes=path.stat().st_size,
        spec_sha256=job.spec_sha256,
        num_made=num_made,
        failures=log.failures,
        judged=log.judged,
    )
    with atomic_file(note_file(out, shard), overwrite=True) as stream:
        stream.write((note.model_dump_json() + "\n").encode())
    return note


class ShardLog:
    """What is noted of a shard while it is made."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.judged: list[Judged] = []

    def fail(self, item: Item, reason: str, attempts: int = 0) -> None:
        """An item that could not be made, and why."""
        failure = Failure(id=item.id, key=item.key, reason=reason, attempts=attempts)
        self.failures.append(failure)


Making = Callable[[ShardLog], Iterable[Sample]]


def read_note(out: Path, shard: int) -> Shard | None:
    """The note of a shard; None if there is none, or it is torn."""
    try:
        return Shard.model_validate_json(note_file(out, shard).read_bytes())
    except (OSError, ValidationError):
        return None


def verified(out: Path, job: Job, shard: int) -> Shard | None:
    """The note of a shard that is there as it was written; None if it must be made."""
    note = read_note(out, shard)
    if note is None or (note.shard, note.spec_sha256) != (shard, job.spec_sha256):
        return None
    try:
        with tar_file(out, shard).open("rb") as stream:
            same = hashlib.file_digest(stream, "sha256").hexdigest() == note.sha256
    except OSError:
        return None
    return note if same else None


def survey(out: Path, job: Job) -> Iterator[tuple[int, Shard | None]]:
    """Every shard of the job, with its note if it need not be made, in order."""
    with ThreadPoolExecutor(_READERS) as pool:
        # a few thousand at a time: a pool would take all at once
        for start in range(0, job.num_shards, 1024):
            numbers = range(start, min(start + 1024, job.num_shards))
            notes = pool.map(lambda number: verified(out, job, number), numbers)
            yield from zip(numbers, notes, strict=True)


def sweep(out: Path) -> None:
    """Remove what writers that were killed left half done."""
    for folder in (out, out / SHARDS):
        for part in folder.glob(".*.part"):
            part.unlink(missing_ok=True)


def notes(out: Path, job: Job) -> Iterator[Shard]:
    """The notes of all shards, in order.

    Raises:
        InvalidInput: one is missing.
    """
    for number in range(job.num_shards):
        note = read_note(out, number)
        if note is None:
            raise InvalidInput(f"shard {number} of {out} is not made; run the job again")
        yield note


def write_errors(out: Path, job: Job) -> int:
    """Write OUT/errors.jsonl, one line for each item that could not be made; how many there are."""
    count = 0
    with atomic_file(out / "errors.jsonl", overwrite=True) as stream:
        for note in notes(out, job):
            for failure in note.failures:
                line = {**failure.model_dump(), "shard": note.shard}
                stream.write((json.dumps(line, sort_keys=True) + "\n").encode())
                count += 1
    return count
