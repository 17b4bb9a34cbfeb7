"""How far a shard that is being made has come, in a small file that the driver looks at.

It is for people only: what counts are the notes of finished shards. A worker that dies takes no
more than its last count with it.
"""

import contextlib
import shutil
import time
from pathlib import Path
from typing import Self

EVERY_S = 1.0
FOLDER = ".progress"


class Counter:
    """Counts the items of one shard, and says so at most once a second."""

    def __init__(self, out: Path, shard: int) -> None:
        self._file = out / FOLDER / f"{shard:06d}"
        self._made = self._failed = 0
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)

    def add(self, made: bool) -> None:
        """One more item is done."""
        self._made += made
        self._failed += not made
        if time.monotonic() - self._said >= EVERY_S:
            self._said = time.monotonic()
            with contextlib.suppress(OSError):  # a full disk shows where it matters
                self._file.parent.mkdir(exist_ok=True)
                part = self._file.with_suffix(".part")
                part.write_text(f"{self._made} {self._failed}")
                part.replace(self._file)  # a reader never sees half of it


def under_way(out: Path) -> tuple[int, int]:
    """Items of unfinished shards that are (made, failed) so far."""
    made = failed = 0
    with contextlib.suppress(OSError):
        for file in (out / FOLDER).iterdir():
            with contextlib.suppress(OSError, ValueError):
                some, others = map(int, file.read_text().split())
                made, failed = made + some, failed + others
    return made, failed


def forget(out: Path) -> None:
    """Remove the counts of workers that were killed."""
    shutil.rmtree(out / FOLDER, ignore_errors=True)
