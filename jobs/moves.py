"""How the rows of a job change, each change with its event.

    queued -> running -> succeeded
       ^         |  `--> failed
       `---------'         (either of the first two may become cancelled)

The caller has locked the job's row, and has checked that the item may move.
"""

from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from jobs.job import MAX_ATTEMPTS, MAX_LOSSES
from jobs.tables import EventRow, ItemRow, JobRow, State


def emit(session: Session, job: JobRow, now: float, kind: str, **data: Any) -> None:
    """Write the job's next event."""
    job.last_seq += 1
    session.add(EventRow(job_id=job.id, seq=job.last_seq, kind=kind, at=now, data=data))


def start(session: Session, job: JobRow, item: ItemRow, now: float) -> None:
    """Give a queued item to a worker, under a new token."""
    item.token += 1
    _move(job, item, State.RUNNING)
    job.state = State.RUNNING
    job.started_at = now if job.started_at is None else job.started_at
    job.leased_at = job.turn_at = now
    emit(session, job, now, "started", index=item.index)


def advance(
    session: Session,
    job: JobRow,
    item: ItemRow,
    now: float,
    step: int,
    num_steps: int,
    preview: str | None,
) -> None:
    """Note the steps of a running item, and show it in place of its last preview."""
    job.message = None
    _set_steps(job, item, step, num_steps)
    emit(session, job, now, "step", index=item.index, step=step, num_steps=num_steps)
    if preview is not None:
        _drop_preview(session, item)
        emit(session, job, now, "preview", index=item.index, step=step, image=preview)
        item.preview_seq = job.last_seq


def requeue(job: JobRow, item: ItemRow, not_before: float) -> None:
    """Put a running item back, to start anew."""
    _move(job, item, State.QUEUED)
    _set_steps(job, item, 0, item.num_steps)
    item.not_before = not_before


def wait(session: Session, job: JobRow, until: float, message: str) -> None:
    """Let the queued items of a job wait, and say why."""
    queued = (ItemRow.job_id == job.id, ItemRow.state == State.QUEUED, ItemRow.not_before < until)
    session.execute(update(ItemRow).where(*queued).values(not_before=until))
    job.message = message


def fail_attempt(
    session: Session,
    job: JobRow,
    item: ItemRow,
    now: float,
    reason: str,
    retry_at: float | None,
) -> None:
    """Count a failed attempt of a running item, and queue it again or give it up."""
    item.attempts += 1
    if retry_at is not None and item.attempts < MAX_ATTEMPTS:
        requeue(job, item, retry_at)
    else:
        fail(session, job, item, now, reason)


def lose(session: Session, job: JobRow, item: ItemRow, now: float, not_before: float) -> None:
    """Count a dead worker of a running item, and queue the item again or give it up."""
    item.losses += 1
    if item.losses < MAX_LOSSES:
        requeue(job, item, not_before)
    else:
        fail(session, job, item, now, f"its worker died {MAX_LOSSES} times")


def fail(session: Session, job: JobRow, item: ItemRow, now: float, error: str) -> None:
    """End a running item without a result."""
    item.error = error
    _end(session, job, item, now, State.FAILED, seed=item.spec.get("seed"), error=error)


def succeed(session: Session, job: JobRow, item: ItemRow, now: float) -> None:
    """End a running item whose record and file are set."""
    _set_steps(job, item, item.num_steps, item.num_steps)
    _end(session, job, item, now, State.SUCCEEDED, seed=(item.record or {}).get("seed"))


def cancel(session: Session, job: JobRow, now: float, message: str | None) -> None:
    """End an unfinished job: what is queued or running becomes cancelled."""
    mine = ItemRow.job_id == job.id
    previews = select(ItemRow.preview_seq).where(mine)
    session.execute(delete(EventRow).where(EventRow.job_id == job.id, EventRow.seq.in_(previews)))
    session.execute(
        update(ItemRow)
        .where(mine, ItemRow.state.in_((State.QUEUED, State.RUNNING)))
        .values(state=State.CANCELLED, lease_until=None, preview_seq=None)
    )
    job.num_cancelled = job.num_queued + job.num_running
    job.num_queued = job.num_running = 0
    _end_job(session, job, now, State.CANCELLED, message)


def _move(job: JobRow, item: ItemRow, state: State) -> None:
    for counted, change in ((item.state, -1), (state, 1)):
        counter = f"num_{counted}"
        setattr(job, counter, getattr(job, counter) + change)
    item.state = state
    item.lease_until = item.worker = None


def _set_steps(job: JobRow, item: ItemRow, step: int, num_steps: int) -> None:
    job.steps_done += step - item.steps_done
    job.num_steps += num_steps - item.num_steps
    item.steps_done, item.num_steps = step, num_steps


def _drop_preview(session: Session, item: ItemRow) -> None:
    if item.preview_seq is not None:
        session.execute(
            delete(EventRow).where(EventRow.job_id == item.job_id, EventRow.seq == item.preview_seq)
        )
        item.preview_seq = None


def _end(
    session: Session, job: JobRow, item: ItemRow, now: float, state: State, **data: Any
) -> None:
    _move(job, item, state)
    job.message = None
    _drop_preview(session, item)
    emit(session, job, now, "item", index=item.index, status=state, **data)
    if job.num_failed == job.num_items - job.num_succeeded:
        message = f"{job.num_failed} of {job.num_items} items failed" if job.num_failed else None
        _end_job(session, job, now, State.FAILED if job.num_failed else State.SUCCEEDED, message)


def _end_job(session: Session, job: JobRow, now: float, state: State, message: str | None) -> None:
    job.state, job.finished_at, job.message = state, now, message
    counts = {"num_succeeded": job.num_succeeded, "num_failed": job.num_failed}
    emit(session, job, now, "finished", status=state, **counts)
