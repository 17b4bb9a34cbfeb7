"""A manifest is read once, row by row, into one file of items a shard.

From then on, the job needs the manifest no more: it resumes with the rows that it began with, even
if the table has been changed or is gone.
"""

import errno
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from gen.data.atomic import atomic_file
from gen.errors import InvalidInput
from jobs.runner.items import ITEMS, Item, items_file, items_of
from jobs.runner.kinds import kind_of
from jobs.runner.readers import open_manifest
from jobs.runner.rows import Row, read_rows
from jobs.runner.spec import Job, JobSpec

NOTHING = "nothing is to be made: n is 0 in every row of the manifest"
_CACHE_KB = 32 * 1024  # of the table of ids, which is on the disk


def freeze(spec: JobSpec, out: Path) -> Job:
    """Write OUT/items and then OUT/job.json.

    Raises:
        InvalidInput: something is wrong with the manifest as a whole: a column that the task needs
            is missing, an id is there twice, or no row is left.
    """
    kind = kind_of(spec.task)
    shutil.rmtree(out / ITEMS, ignore_errors=True)  # of a start that was cut off
    (out / ITEMS).mkdir(parents=True)
    with opened_items(spec, out / ".ids.db") as opened:
        total, sha256 = 0, hashlib.sha256()
        shard = 0
        while batch := list(islice(opened.items, spec.shard_size)):
            if shard == 0:
                kind.check_params(spec, batch[0])
            sha256.update(_write(out, shard, batch))
            total, shard = total + len(batch), shard + 1
    if total == 0:
        raise InvalidInput(NOTHING)
    job = Job(
        spec=spec,
        spec_sha256=spec.digest,
        root=str(opened.root),
        num_rows=opened.rows.count,
        num_items=total,
        num_shards=shard,
        items_sha256=sha256.hexdigest(),
    )
    job.write(out)
    return job


@dataclass(frozen=True)
class Opened:
    """The items of a manifest, as they are read.

    Args:
        root: folder that pictures are named from.
        rows: those that were read by now are counted.
    """

    root: Path
    rows: "Counted"
    items: Iterator[Item]


@contextmanager
def opened_items(spec: JobSpec, table: Path) -> Iterator[Opened]:
    """Read a manifest's rows as items, in order.

    Args:
        table: a file for the ids, which is removed at the end.

    Raises:
        InvalidInput: a column that the task needs is missing, an id is there twice, or no row is
            left; the last two while items are read.
        OSError: the disk is full.
    """
    kind = kind_of(spec.task)
    source = open_manifest(spec.manifest)
    rows = Counted(read_rows(source, spec.manifest, kind.needs(spec.params), kind.chest))
    with _full_disk(), closing(_Ids(table)) as ids:
        items = (item for row in ids.watch(rows) for item in items_of(row, spec.n))
        yield Opened(source.root, rows, items)


@contextmanager
def _full_disk() -> Iterator[None]:
    """Raise SQLite's error of a full disk as the system's own."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error


def _write(out: Path, shard: int, items: list[Item]) -> bytes:
    data = "".join(item.to_line() for item in items).encode()
    with atomic_file(items_file(out, shard), overwrite=True) as stream:
        stream.write(data)
    return data


class Counted(Iterable[Row]):
    """Rows, and how many there were."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = rows
        self.count = 0

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.count += 1
            yield row


class _Ids:
    """Refuses an id that was there before. The ids lie on the disk: there may be many millions."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        self._table = sqlite3.connect(path, isolation_level=None)
        for line in (
            "PRAGMA journal_mode=OFF",
            "PRAGMA synchronous=OFF",
            f"PRAGMA cache_size=-{_CACHE_KB}",
            "CREATE TABLE ids (id TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID",
            "BEGIN",
        ):
            self._table.execute(line)

    def watch(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows. Raises InvalidInput at the first that repeats an id."""
        for row in rows:
            added = self._table.execute(
                "INSERT OR IGNORE INTO ids VALUES (?, ?)", (row.id, row.number)
            )
            if added.rowcount == 0:
                question = "SELECT number FROM ids WHERE id = ?"
                (first,) = self._table.execute(question, (row.id,)).fetchone()
                raise InvalidInput(
                    f"row {row.number} of the manifest has the id {row.id!r}, which row {first} has"
                    " already; ids decide seeds and names, so give each row its own in a column id"
                )
            yield row

    def close(self) -> None:
        """Forget them."""
        self._table.close()
        self._path.unlink(missing_ok=True)
