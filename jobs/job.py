"""What the job store tells about a job: the job, its items, leases of them and its events."""

import re
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from gen.errors import InvalidInput
from jobs.tables import EventRow, ItemRow, JobRow, State

JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
CURSOR = re.compile(r"([0-9]+[.][0-9]+)_([A-Za-z0-9_-]{1,64})")  # when and which
MAX_ATTEMPTS = 3  # an error that came back twice comes back
MAX_LOSSES = 10  # more than MAX_ATTEMPTS: workers die of many things, seldom of an item
T = TypeVar("T", "Job", "Item", "Event")


@dataclass(frozen=True)
class Job:
    """A job. Times are unix seconds; `num_steps` grows to what the items report."""

    id: str
    task: str
    owner: str
    state: State
    spec: dict[str, Any]
    num_items: int
    num_succeeded: int
    num_failed: int
    steps_done: int
    num_steps: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    expires_at: float
    message: str | None


@dataclass(frozen=True)
class Item:
    """One image of a job. `attempts` failed, `losses` ended with their worker; `size` in bytes."""

    job_id: str
    index: int
    state: State
    spec: dict[str, Any]
    steps_done: int
    num_steps: int
    record: dict[str, Any] | None
    file: str | None
    sha256: str | None
    size: int | None
    attempts: int
    losses: int
    error: str | None


@dataclass(frozen=True)
class Lease:
    """The right to work on an item; `attempt` counts from 1 to MAX_ATTEMPTS."""

    job_id: str
    index: int
    token: int
    task: str
    owner: str
    job_spec: dict[str, Any]
    item_spec: dict[str, Any]
    attempt: int


@dataclass(frozen=True)
class Event:
    """What happened to a job: its `seq`-th event, at unix time `at`."""

    seq: int
    kind: str
    at: float
    data: dict[str, Any]


def read(kind: type[T], row: JobRow | ItemRow | EventRow) -> T:
    """The row as what others see of it."""
    return kind(**{field.name: getattr(row, field.name) for field in fields(kind)})


def lease_of(job: JobRow, item: ItemRow) -> Lease:
    """The lease that an item has just been given."""
    return Lease(
        job_id=job.id,
        index=item.index,
        token=item.token,
        task=job.task,
        owner=job.owner,
        job_spec=job.spec,
        item_spec=item.spec,
        attempt=item.attempts + 1,
    )


def cursor_of(row: JobRow) -> str:
    """Where a page of jobs ends."""
    return f"{row.created_at!r}_{row.id}"


def parse_cursor(cursor: str) -> tuple[float, str]:
    """(created_at, id) of a cursor. Raises InvalidInput."""
    match = CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidInput("before is no cursor; give the 'next' of the page before, unchanged")
    return float(match[1]), match[2]
