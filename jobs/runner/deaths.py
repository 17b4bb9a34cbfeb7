"""Finds the item that kills whoever makes it, by notes that outlive them in OUT/.deaths.

A worker that dies can say nothing. So each shard has a note while it is under way; who finds one
knows that the last worker died over it. After some deaths its items are made one at a time, and an
item over which, alone, as many workers died is given up.
"""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ValidationError

from gen.data.atomic import atomic_file
from gen.errors import MedphantomError
from jobs.runner.items import Item

FOLDER = ".deaths"
MOST_DEATHS = 3


class Note(BaseModel):
    """What is known of a shard.

    Args:
        under_way: somebody makes it, or has died over it.
        alone: key of the item that is made, if it is made alone.
        deaths: while no item was made alone.
        of_items: key -> deaths while it was made alone.
    """

    under_way: bool = False
    alone: str | None = None
    deaths: int = 0
    of_items: dict[str, int] = {}


class Suspicion:
    """Counts the deaths over a shard; see `Watch.over`."""

    def __init__(self, out: Path, shard: int) -> None:
        self._file = out / FOLDER / f"{shard:06d}"
        note = _read(self._file)
        if note.under_way and note.alone is not None:
            note.of_items[note.alone] = note.of_items.get(note.alone, 0) + 1
        elif note.under_way:
            note.deaths += 1
        note.under_way, note.alone = False, None
        self._note = note

    @property
    def one_at_a_time(self) -> bool:
        """Whether its items are made so, to find the one to blame."""
        return self._note.deaths >= MOST_DEATHS

    @property
    def hopeless(self) -> bool:
        """Whether workers die before they come to an item, so that no item is to blame."""
        return self._note.deaths >= 2 * MOST_DEATHS

    def under_way(self, alone: Item | None = None) -> None:
        """Note that the shard is made, or this item of it, alone. Raises OSError: a full disk."""
        self._note.under_way, self._note.alone = True, None if alone is None else alone.key
        self._keep()

    def refuse(self, item: Item) -> None:
        """Raise MedphantomError if the item is given up."""
        deaths = self._note.of_items.get(item.key, 0)
        if deaths >= MOST_DEATHS:
            raise Deadly(f"its worker died {deaths} times, as for want of memory")

    def rest(self) -> None:
        """Note that nobody makes it, and nobody died."""
        self._note.under_way, self._note.alone = False, None
        with contextlib.suppress(OSError):  # what is wrong with the disk is being told already
            self._keep()

    def done(self) -> None:
        """Forget it."""
        self._file.unlink(missing_ok=True)

    def _keep(self) -> None:
        self._file.parent.mkdir(exist_ok=True)
        with atomic_file(self._file, overwrite=True) as stream:
            stream.write(self._note.model_dump_json().encode())


class Deadly(MedphantomError):
    """An item over which too many workers died."""


class Watch:
    """Over what one worker makes, so that no shard is blamed for what another did.

    Args:
        at_once: most shards that are under way together; one under suspicion is so alone.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._seats = threading.Semaphore(at_once)
        self._queue = threading.Lock()

    @contextmanager
    def over(self, out: Path, shard: int) -> Iterator[Suspicion]:
        """While a shard is made. Raises OSError: its note cannot be written."""
        suspicion = Suspicion(out, shard)
        seats = self._at_once if suspicion.one_at_a_time else 1
        with self._queue:
            for _ in range(seats):
                self._seats.acquire()
        try:
            suspicion.under_way()
            yield suspicion
        except BaseException:
            suspicion.rest()
            raise
        else:
            suspicion.done()
        finally:
            self._seats.release(seats)


def forgive(out: Path) -> None:
    """Forget all deaths: who stops a job of their own accord has killed nobody."""
    shutil.rmtree(out / FOLDER, ignore_errors=True)


def _read(file: Path) -> Note:
    try:
        return Note.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return Note()
