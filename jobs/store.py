"""The truth about jobs: what was asked for, who works on it, what came out and what happened.

Work is done at least once, a result is visible exactly once: a worker leases an item, keeps the
lease alive, and publishes with the lease's token, which counts no more once the item was
cancelled or given to another worker. Whatever changes a state writes the event about it in the
same transaction. No error repeats a spec or a record.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from sqlalchemy import CursorResult, delete, func, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from gen.errors import Conflict, InvalidInput, LeaseLost, NotFound
from jobs import moves
from jobs.job import JOB_ID, Event, Item, Job, Lease, cursor_of, lease_of, parse_cursor, read
from jobs.tables import Database, EventRow, FactRow, ItemRow, JobRow, State
from jobs.turns import whose_turn

__all__ = ["Event", "Item", "Job", "JobStore", "Lease", "State"]

SKIP_LOCKED = {"skip_locked": True}  # another worker is at this job: take of the next


class JobStore:
    """Jobs in a database, for any number of threads and processes.

    Args:
        url: `sqlite:///FILE` or `postgresql+psycopg://...`; missing tables are made.
        clock: unix time in seconds.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(url)
        self._clock = clock

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.close()

    def create(
        self,
        job_id: str,
        task: str,
        owner: str,
        spec: dict[str, Any],
        items: Sequence[dict[str, Any]],
        ttl_s: float,
        *,
        steps_per_item: int = 0,
    ) -> tuple[Job, bool]:
        """Queue a job, or find the same one; the bool says whether it was newly made.

        Args:
            job_id: 1 to 64 of A-Z a-z 0-9 _ -, chosen by the client or drawn.
            task: what is to be made.
            owner: who may see the job, and whom its turns count for.
            spec: what the items have in common, in JSON's types.
            items: what each item adds to it, in JSON's types.
            ttl_s: seconds until the job is forgotten, done or not.
            steps_per_item: the steps expected of each item; workers correct it.

        Raises:
            InvalidInput: the id has other characters, or there is no item.
            Conflict: the id is another owner's, or its task or spec differs.
        """
        if not JOB_ID.fullmatch(job_id):
            raise InvalidInput("job id must be 1 to 64 of A-Z a-z 0-9 _ -; choose another")
        if not items:
            raise InvalidInput("items is empty, but a job has at least one; add an item")
        now = self._clock()
        job = {
            "id": job_id,
            "task": task,
            "owner": owner,
            "spec": json.loads(json.dumps(spec)),  # as it is read again, to be compared
            "num_items": len(items),
            "num_queued": len(items),
            "num_steps": len(items) * steps_per_item,
            "created_at": now,
            "turn_at": now,
            "expires_at": now + ttl_s,
        }
        rows = [
            {"job_id": job_id, "index": i, "spec": item, "num_steps": steps_per_item}
            for i, item in enumerate(items)
        ]
        try:
            return self._create(job, rows)
        except IntegrityError:  # PostgreSQL: made by another process since we looked
            return self._create(job, rows)

    def _create(self, job: dict[str, Any], items: Sequence[dict[str, Any]]) -> tuple[Job, bool]:
        with self._database.writing() as session:
            row = session.get(JobRow, job["id"])
            if row is not None:
                if any(getattr(row, name) != job[name] for name in ("owner", "task", "spec")):
                    raise Conflict(f"job id {row.id} is taken by another job; choose another id")
                return read(Job, row), False
            row = JobRow(**job)
            session.add(row)
            session.flush()
            session.execute(insert(ItemRow), items)
            moves.emit(session, row, row.created_at, "queued", num_items=row.num_items)
            return read(Job, row), True

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """A job, of that owner if one is given.

        Raises:
            NotFound: there is none, it was forgotten, or it is another owner's.
        """
        with self._database.reading() as session:
            row = _find(session, job_id)
            if owner is not None and row.owner != owner:
                raise _no_job()
            return read(Job, row)

    def items(self, job_id: str, start: int, limit: int) -> Sequence[Item]:
        """At most `limit` items from index `start` on. Raises NotFound."""
        with self._database.reading() as session:
            _find(session, job_id)
            query = select(ItemRow).where(ItemRow.job_id == job_id, ItemRow.index >= start)
            rows = session.scalars(query.order_by(ItemRow.index).limit(limit))
            return [read(Item, row) for row in rows]

    def item(self, job_id: str, index: int) -> Item:
        """One item. Raises NotFound."""
        with self._database.reading() as session:
            _find(session, job_id)
            row = session.get(ItemRow, (job_id, index))
            if row is None:
                raise NotFound(f"job {job_id} has no item {index}; items count from 0")
            return read(Item, row)

    def events(self, job_id: str, after: int = 0, limit: int = 500) -> Sequence[Event]:
        """At most `limit` events with seq above `after`, in order. Raises NotFound.

        Nothing appears below a seq already seen; a seq that is missing was an older preview.
        """
        with self._database.reading() as session:
            _find(session, job_id)
            query = select(EventRow).where(EventRow.job_id == job_id, EventRow.seq > after)
            rows = session.scalars(query.order_by(EventRow.seq).limit(limit))
            return [read(Event, row) for row in rows]

    def cancel(self, job_id: str) -> Job:
        """Stop a job at once; a finished one stays as it is. Raises NotFound.

        Items that were queued or running become cancelled, and their leases are void.
        """
        return self._cancel(job_id, None)

    def _cancel(self, job_id: str, message: str | None) -> Job:
        with self._database.writing() as session:
            job = _find(session, job_id, lock=True)
            if not job.state.is_final:
                moves.cancel(session, job, self._clock(), message)
            return read(Job, job)

    def lease(self, worker: str, limit: int, lease_s: float) -> Sequence[Lease]:
        """Take at most `limit` items for `lease_s` seconds; owners and jobs take turns.

        An item whose lease ran out lost its worker and is taken over. Fewer items than there are
        may come back while other workers lease too: ask again.
        """
        now = self._clock()
        with self._database.reading() as session:
            query = select(ItemRow.job_id).where(ItemRow.lease_until <= now)
            expired = set(session.scalars(query))  # SQLite reads all items for a DISTINCT
        for job_id in sorted(expired):
            self._take_back(job_id, now)
        with self._database.reading() as session:
            turns = whose_turn(session, now, limit)
        return [
            lease
            for job_id, count in turns.items()
            for lease in self._take(job_id, count, worker, now, now + lease_s)
        ]

    def _take_back(self, job_id: str, now: float) -> None:
        with self._database.writing() as session:
            job = session.get(JobRow, job_id, with_for_update=SKIP_LOCKED)
            if job is None:
                return
            query = select(ItemRow).where(ItemRow.job_id == job_id, ItemRow.lease_until <= now)
            # a lease that is being extended at this moment is not lost
            for item in session.scalars(query.with_for_update(skip_locked=True)):
                moves.lose(session, job, item, now, not_before=now)

    def _take(
        self, job_id: str, count: int, worker: str, now: float, until: float
    ) -> Sequence[Lease]:
        with self._database.writing() as session:
            job = session.get(JobRow, job_id, with_for_update=SKIP_LOCKED)
            if job is None:
                return []
            ready = (ItemRow.state == State.QUEUED, ItemRow.not_before <= now)
            query = select(ItemRow).where(ItemRow.job_id == job_id, *ready)
            rows = session.scalars(query.order_by(ItemRow.index).limit(count)).all()
            for item in rows:
                moves.start(session, job, item, now)
                item.worker, item.lease_until = worker, until
            return [lease_of(job, item) for item in rows]

    def heartbeat(self, leases: Sequence[Lease], lease_s: float) -> Sequence[Lease]:
        """Extend leases to `lease_s` seconds from now; those that are lost come back.

        A lease that ran out but was not taken over yet is kept.
        """
        return [lease for lease in leases if not self._extend(lease, lease_s)]

    def _extend(self, lease: Lease, lease_s: float) -> bool:
        with self._database.writing() as session:
            result = session.execute(
                update(ItemRow)
                .where(
                    ItemRow.job_id == lease.job_id,
                    ItemRow.index == lease.index,
                    ItemRow.token == lease.token,
                    ItemRow.state == State.RUNNING,
                )
                .values(lease_until=self._clock() + lease_s)
            )
            return cast("CursorResult[Any]", result).rowcount == 1

    def progress(self, lease: Lease, step: int, num_steps: int, preview: str | None = None) -> None:
        """Say that `step` of `num_steps` is done, and perhaps show it. Raises LeaseLost.

        Args:
            lease: of the item.
            step: steps done so far.
            num_steps: steps in all.
            preview: a data URL of the unfinished image; it replaces the item's last one.
        """
        with self._holding(lease) as (session, job, item):
            moves.advance(session, job, item, self._clock(), step, num_steps, preview)

    def finish(
        self, lease: Lease, record: dict[str, Any], file: str, sha256: str, size: int
    ) -> None:
        """Publish an item's result; saying so twice is fine. Raises LeaseLost.

        Args:
            lease: of the item.
            record: how the image was made, in JSON's types; "seed" is told in the event.
            file: where the whole file lies.
            sha256: of the file, in hexadecimal digits.
            size: of the file, in bytes.
        """
        with self._holding(lease, or_published=True) as (session, job, item):
            if item.state is State.RUNNING:
                item.record, item.file, item.sha256, item.size = record, file, sha256, size
                moves.succeed(session, job, item, self._clock())

    def fail(
        self,
        lease: Lease,
        reason: str,
        retry: bool,
        after_s: float = 0.0,
        record: dict[str, Any] | None = None,
    ) -> None:
        """Say that an attempt failed; the item is queued again or failed. Raises LeaseLost.

        Args:
            lease: of the item.
            reason: for the client, without anything of the spec.
            retry: whether another attempt may go better; there are MAX_ATTEMPTS at most.
            after_s: how long nobody leases the item before another attempt.
            record: what is known of what was made and refused, in JSON's types.
        """
        with self._holding(lease) as (session, job, item):
            if record is not None:
                item.record = record
            now = self._clock()
            moves.fail_attempt(session, job, item, now, reason, now + after_s if retry else None)

    def release(self, lease: Lease, delay_s: float, *, lost: bool) -> None:
        """Give an item back for `delay_s` seconds, with no attempt counted. Raises LeaseLost.

        Args:
            lease: of the item.
            delay_s: how long nobody leases the item.
            lost: whether the process that made the image died; MAX_LOSSES fail the item. False
                for what the item cannot cause, such as a full disk.
        """
        with self._holding(lease) as (session, job, item):
            now = self._clock()
            if lost:
                moves.lose(session, job, item, now, now + delay_s)
            else:
                moves.requeue(job, item, now + delay_s)

    def postpone(self, lease: Lease, delay_s: float, message: str) -> None:
        """Give an item back, and let all of its job wait as long. Raises LeaseLost.

        Args:
            lease: of the item.
            delay_s: how long nobody leases any of the job's queued items.
            message: why, for the client; it stands until an item goes on.
        """
        with self._holding(lease) as (session, job, item):
            until = self._clock() + delay_s
            moves.requeue(job, item, until)
            moves.wait(session, job, until, message)

    @contextmanager
    def _holding(
        self, lease: Lease, or_published: bool = False
    ) -> Iterator[tuple[Session, JobRow, ItemRow]]:
        """The locked rows of a lease that still counts, or that has published its result."""
        with self._database.writing() as session:
            job = session.get(JobRow, lease.job_id, with_for_update=True)
            item = session.get(ItemRow, (lease.job_id, lease.index))
            states = (State.RUNNING, State.SUCCEEDED) if or_published else (State.RUNNING,)
            if not job or not item or item.token != lease.token or item.state not in states:
                raise LeaseLost(
                    f"item {lease.index} of job {lease.job_id} was cancelled or given to another"
                    " worker; drop what was made"
                )
            yield session, job, item

    def purge(self, forget: Callable[[str], object] = lambda _: None) -> Sequence[str]:
        """Forget expired jobs, and say which result files they had.

        Args:
            forget: deletes a file. It is called before the job's row goes, so that a file is
                tried again, not left behind, if the process dies in between.
        """
        now = self._clock()
        with self._database.reading() as session:
            expired = session.scalars(select(JobRow.id).where(JobRow.expires_at <= now)).all()
        return [file for job_id in expired for file in self._forget(job_id, forget)]

    def _forget(self, job_id: str, forget: Callable[[str], object]) -> Sequence[str]:
        try:
            self._cancel(job_id, "expired before it was done")  # from here on nothing is published
        except NotFound:  # another process forgot it
            return []
        query = select(ItemRow.file).where(ItemRow.job_id == job_id, ItemRow.file.is_not(None))
        with self._database.reading() as session:
            files = [file for file in session.scalars(query.order_by(ItemRow.index)) if file]
        for file in files:
            forget(file)
        with self._database.writing() as session:
            session.execute(delete(JobRow).where(JobRow.id == job_id))
        return files

    def counts(self) -> dict[State, int]:
        """How many items there are in each state."""
        columns = [func.sum(getattr(JobRow, f"num_{state}")) for state in State]
        with self._database.reading() as session:
            sums = session.execute(select(*columns)).one()
        return {state: total or 0 for state, total in zip(State, sums, strict=True)}

    def recall(self, name: str) -> dict[str, Any] | None:
        """What was remembered under a name."""
        with self._database.reading() as session:
            row = session.get(FactRow, name)
            return row.value if row else None

    def remember(self, name: str, value: dict[str, Any]) -> dict[str, Any]:
        """Keep a value unless there is one; returns what is kept."""
        try:
            with self._database.writing() as session:
                row = session.get(FactRow, name)
                if row is None:
                    row = FactRow(name=name, value=value)
                    session.add(row)
                return row.value
        except IntegrityError:  # PostgreSQL: another process came first
            return self.remember(name, value)

    def list(
        self, owner: str | None, limit: int, before: str | None = None
    ) -> tuple[Sequence[Job], str | None]:
        """An owner's or everybody's jobs, newest first, and the cursor of the next page.

        Raises:
            InvalidInput: `before` is no cursor of an earlier page.
        """
        query = select(JobRow).order_by(JobRow.created_at.desc(), JobRow.id.desc())
        if owner is not None:
            query = query.where(JobRow.owner == owner)
        if before is not None:
            query = query.where(tuple_(JobRow.created_at, JobRow.id) < parse_cursor(before))
        with self._database.reading() as session:
            rows = session.scalars(query.limit(limit + 1)).all()
        more = len(rows) > limit
        page = rows[:limit]
        return [read(Job, row) for row in page], cursor_of(page[-1]) if more else None


def _find(session: Session, job_id: str, lock: bool = False) -> JobRow:
    # an id that cannot be is not asked for: PostgreSQL fails on a NUL in it
    row = JOB_ID.fullmatch(job_id) and session.get(JobRow, job_id, with_for_update=lock)
    if not row:
        raise _no_job()
    return row


def _no_job() -> NotFound:
    return NotFound("there is no such job, or it has expired; list your jobs to see what there is")
