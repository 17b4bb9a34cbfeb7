"""Whose turn it is to have an item made, so that a large job does not keep out a small one."""

import heapq
import math
from collections import Counter

from sqlalchemy import ColumnElement, Integer, func, literal_column, select
from sqlalchemy.orm import Session

from jobs.tables import ItemRow, JobRow, State

# zeros are written out, not bound: only then do both planners see that the partial indexes fit
_ZERO: ColumnElement[int] = literal_column("0", Integer)


def whose_turn(session: Session, now: float, limit: int) -> dict[str, int]:
    """How many items of which jobs are next: {job id: count}, together at most `limit`.

    Owners take turns, and so do the jobs of one owner: whoever has the fewest items running comes
    first, then whoever has waited longest since the last lease. Thus many slots are shared out
    evenly, and a single slot goes round. The work is in proportion to owners and `limit`.
    """
    owners = _waiting_owners(session)
    heapq.heapify(owners)
    jobs: dict[str, list[tuple[int, float, str, int]]] = {}
    turns: Counter[str] = Counter()
    while owners and turns.total() < limit:
        running, _, owner = heapq.heappop(owners)
        if owner not in jobs:
            jobs[owner] = _waiting_jobs(session, owner, now, limit)
        if jobs[owner]:
            job_running, _, job_id, queued = heapq.heappop(jobs[owner])
            turns[job_id] += 1
            if queued > 1:
                heapq.heappush(jobs[owner], (job_running + 1, now, job_id, queued - 1))
            heapq.heappush(owners, (running + 1, now, owner))
    return turns


def _waiting_owners(session: Session) -> list[tuple[int, float, str]]:
    """(running items, last lease, owner) of owners with queued items, one index seek each."""
    waiting = JobRow.num_queued > _ZERO
    owners = select(func.min(JobRow.owner).label("owner")).where(waiting).cte(recursive=True)
    following = select(func.min(JobRow.owner)).where(waiting, JobRow.owner > owners.c.owner)
    owners = owners.union_all(
        select(following.scalar_subquery()).where(owners.c.owner.is_not(None))
    )
    mine = JobRow.owner == owners.c.owner
    running = select(func.sum(JobRow.num_running)).where(mine, JobRow.num_running > _ZERO)
    served = select(func.max(JobRow.leased_at)).where(mine)
    rows = session.execute(
        select(running.scalar_subquery(), served.scalar_subquery(), owners.c.owner).where(
            owners.c.owner.is_not(None)
        )
    )
    return [
        (running or 0, -math.inf if served is None else served, owner)
        for running, served, owner in rows
    ]


def _waiting_jobs(
    session: Session, owner: str, now: float, limit: int
) -> list[tuple[int, float, str, int]]:
    """(running items, last turn, id, queued items) of an owner's jobs with an item to lease."""
    ready = select(ItemRow.index).where(
        ItemRow.job_id == JobRow.id, ItemRow.state == State.QUEUED, ItemRow.not_before <= now
    )
    rows = session.execute(
        select(JobRow.num_running, JobRow.turn_at, JobRow.id, JobRow.num_queued)
        .where(JobRow.owner == owner, JobRow.num_queued > _ZERO, ready.exists())
        .order_by(JobRow.num_running, JobRow.turn_at, JobRow.id)
        .limit(limit)
    )
    return [(running, turn_at, job_id, queued) for running, turn_at, job_id, queued in rows]
