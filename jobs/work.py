"""The vocabulary between those who ask for items and those who make them: work, and news of it."""

from dataclasses import dataclass, field
from typing import Any

from gen.sharing import LIVE
from jobs.tasks.task import ItemSpec, Made


@dataclass(frozen=True)
class Work:
    """Items of one request, to be made by one executor.

    Args:
        task: its name.
        request_id: of the request or job.
        owner: who asked; owners share the engine evenly.
        spec: as it was checked, as JSON.
        items: by their index.
        priority: of `gen.sharing`.
        exact: give the same bits in any company.
        step_s: tell of steps, at most so often in seconds; None tells only of the end.
    """

    task: str
    request_id: str
    owner: str
    spec: dict[str, Any]
    items: dict[int, ItemSpec]
    priority: int = LIVE
    exact: bool = False
    step_s: float | None = None


@dataclass(frozen=True)
class Started:
    """The item's process runs."""

    index: int


@dataclass(frozen=True)
class Step:
    """The item has done so many of its steps."""

    index: int
    step: int
    num_steps: int


@dataclass(frozen=True)
class Preview:
    """What the item looks like so far."""

    index: int
    step: int
    num_steps: int
    png: bytes = field(repr=False)


@dataclass(frozen=True)
class Done:
    """The item is made."""

    index: int
    made: Made = field(repr=False)


@dataclass(frozen=True)
class Failed:
    """The item cannot be made; `retry` if another try may help, after so many seconds."""

    index: int
    reason: str
    retry: bool
    after_s: float = 0.0
    record: dict[str, Any] | None = None  # what is known of what was made and refused


@dataclass(frozen=True)
class Waits:
    """Nothing of the item's job can be made yet; look again after so many seconds."""

    index: int
    reason: str
    after_s: float


News = Started | Step | Preview | Done | Failed
