"""Jobs survive whatever their workers do, on SQLite and on PostgreSQL."""

import multiprocessing
import os
import re
import signal
import sqlite3
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from gen.errors import Conflict, InvalidInput, LeaseLost, MedphantomError, NotFound
from jobs.store import JobStore, Lease, State

DAY = 86400.0
REFUSALS = (MedphantomError, SQLAlchemyError, ValueError, TypeError, OverflowError)
SPAWN = multiprocessing.get_context("spawn")
CANARY = "canary" + "-7f3a"  # put together here, so that no source line in a traceback has it


@pytest.fixture
def now() -> list[float]:
    """The time of the simulated clock."""
    return [1000.0]


@pytest.fixture
def store(store_url: str, now: list[float]) -> Iterator[JobStore]:
    """A store without jobs, on either database."""
    store = JobStore(store_url, lambda: now[0])
    yield store
    store.close()


def queue(store: JobStore, job_id: str = "job", num_items: int = 1, owner: str = "ann") -> None:
    """Create a job of `num_items` items of 4 steps, seeds from 100."""
    items = [{"seed": 100 + i} for i in range(num_items)]
    store.create(job_id, "text-to-cxr", owner, {"prompt": "p"}, items, DAY, steps_per_item=4)


def take(store: JobStore, limit: int = 1, worker: str = "w") -> list[Lease]:
    """Lease for 30 seconds."""
    return list(store.lease(worker, limit, 30.0))


def finish(store: JobStore, lease: Lease) -> None:
    """Publish a result."""
    file = f"{lease.job_id}/{lease.index}-{lease.token}.png"
    store.finish(lease, {"seed": 7}, file, "ab" * 32, 5)


def told(store: JobStore, job_id: str = "job") -> list[tuple[str, dict[str, Any]]]:
    """Kind and data of all events."""
    return [(event.kind, event.data) for event in store.events(job_id)]


def test_a_job_runs_from_its_queue_to_its_result(store: JobStore, now: list[float]) -> None:
    queue(store)
    job = store.get("job")
    assert (job.state, job.created_at, job.expires_at) == ("queued", 1000.0, 1000.0 + DAY)
    assert (job.steps_done, job.num_steps, job.spec) == (0, 4, {"prompt": "p"})
    now[0] += 1
    (lease,) = take(store)
    assert (lease.job_spec, lease.item_spec, lease.attempt) == ({"prompt": "p"}, {"seed": 100}, 1)
    assert (lease.task, lease.owner, lease.token) == ("text-to-cxr", "ann", 1)
    store.progress(lease, 2, 5, preview="data:")
    job = store.get("job")
    assert (job.state, job.started_at, job.steps_done, job.num_steps) == ("running", 1001.0, 2, 5)
    now[0] += 1
    finish(store, lease)
    item = store.item("job", 0)
    assert (item.state, item.record, item.size) == ("succeeded", {"seed": 7}, 5)
    assert (item.file, item.sha256, item.steps_done) == ("job/0-1.png", "ab" * 32, 5)
    job = store.get("job")
    assert (job.state, job.finished_at, job.num_succeeded) == ("succeeded", 1002.0, 1)
    assert told(store) == [
        ("queued", {"num_items": 1}),
        ("started", {"index": 0}),
        ("step", {"index": 0, "step": 2, "num_steps": 5}),
        ("item", {"index": 0, "status": "succeeded", "seed": 7}),
        ("finished", {"status": "succeeded", "num_succeeded": 1, "num_failed": 0}),
    ]


def test_fifty_threads_that_create_one_job_make_it_once(store: JobStore) -> None:
    def create(_: int) -> tuple[str, bool]:
        job, new = store.create("job", "t", "ann", {"a": [1.5, None]}, [{}] * 20, DAY)
        return job.id, new

    with ThreadPoolExecutor(50) as pool:
        made = list(pool.map(create, range(50)))
    assert sorted(made) == [("job", False)] * 49 + [("job", True)]
    assert len(store.items("job", 0, 100)) == 20
    assert [event.seq for event in store.events("job")] == [1]


@pytest.mark.parametrize("change", [{"owner": "bob"}, {"task": "u"}, {"spec": {"a": 2}}])
def test_an_id_is_not_given_to_another_job(store: JobStore, change: dict[str, Any]) -> None:
    job = {"job_id": "job", "task": "t", "owner": "ann", "spec": {"a": 1}}
    store.create(**job, items=[{}], ttl_s=DAY)  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="job is taken"):
        store.create(**{**job, **change}, items=[{}], ttl_s=DAY)


def test_a_spec_is_the_same_after_its_journey_through_json(store: JobStore) -> None:
    spec: dict[str, Any] = {"seeds": (1, 2), "text": "\0 ü \ud800", "scale": 0.1 + 0.2}
    made = [store.create("job", "t", "ann", spec, [spec], DAY)[1] for _ in range(2)]
    assert made == [True, False]
    assert store.get("job").spec == store.item("job", 0).spec == {**spec, "seeds": [1, 2]}


def test_what_cannot_be_a_job_is_refused(store: JobStore) -> None:
    for job_id in ("", "a/b", "a\n", "é", "a" * 65, "\0"):
        with pytest.raises(InvalidInput, match="job id"):
            store.create(job_id, "t", "ann", {}, [{}], DAY)
    with pytest.raises(InvalidInput, match="at least one"):
        store.create("job", "t", "ann", {}, [], DAY)


@pytest.mark.parametrize("job_id", ["none", "\0", "a/../b"])
def test_a_job_that_is_not_there_is_not_found_by_any_call(store: JobStore, job_id: str) -> None:
    calls: list[Callable[[str], Any]] = [
        store.get,
        store.cancel,
        store.events,
        lambda job_id: store.items(job_id, 0, 10),
        lambda job_id: store.item(job_id, 0),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            call(job_id)


def test_a_job_of_another_owner_looks_like_none(store: JobStore) -> None:
    queue(store)
    assert store.get("job", "ann") == store.get("job")
    with pytest.raises(NotFound) as theirs:
        store.get("job", "bob")
    with pytest.raises(NotFound) as nobodys:
        store.get("other", "bob")
    assert str(theirs.value) == str(nobodys.value)
    with pytest.raises(NotFound, match="no item 1"):
        store.item("job", 1)


def test_items_come_in_pages_by_index(store: JobStore) -> None:
    queue(store, num_items=1000)
    assert [item.index for item in store.items("job", 997, 2)] == [997, 998]
    assert store.item("job", 999).spec == {"seed": 1099}


def test_jobs_are_listed_newest_first_page_by_page(store: JobStore, now: list[float]) -> None:
    for i in range(7):
        queue(store, f"job-{i}", owner="bob" if i == 3 else "ann")
        now[0] += 0.1 * (i % 2)  # some are as old as the next
    pages: list[str] = []
    before: str | None = None
    while before or not pages:
        page, before = store.list("ann", 2, before)
        pages += [job.id for job in page]
    assert pages == [f"job-{i}" for i in (6, 5, 4, 2, 1, 0)]
    assert [job.id for job in store.list(None, 10)[0]] == [f"job-{i}" for i in range(6, -1, -1)]
    assert store.list("bob", 1)[1] is None
    for cursor in ("", "x", "nan_job", "1.0_a/b", "1_\0"):
        with pytest.raises(InvalidInput, match="next"):
            store.list("ann", 2, cursor)


def test_owners_then_their_jobs_share_the_slots(store: JobStore) -> None:
    queue(store, "ann-large", 50)
    queue(store, "ann-small", 3)
    queue(store, "bob-1", 2, owner="bob")
    first = take(store, 4)
    assert sorted(lease.job_id for lease in first) == ["ann-large", "ann-small", "bob-1", "bob-1"]
    queue(store, "eve-1", 50, owner="eve")
    second = [lease.job_id for lease in take(store, 4)]
    assert sorted(second) == ["ann-large", "eve-1", "eve-1", "eve-1"]


def test_a_single_slot_goes_round(store: JobStore, now: list[float]) -> None:
    for job_id, owner in (("a1", "ann"), ("a2", "ann"), ("b1", "bob")):
        queue(store, job_id, 10, owner)
        now[0] += 1
    order = []
    for _ in range(8):
        (lease,) = take(store)
        order.append(lease.job_id)
        now[0] += 1
        finish(store, lease)
    assert order == ["a1", "b1", "a2", "b1", "a1", "b1", "a2", "b1"]


def test_a_lease_is_kept_by_heartbeats_and_taken_over_without(
    store: JobStore, now: list[float]
) -> None:
    queue(store, num_items=2)
    kept, dropped = take(store, 2, "dies")
    now[0] += 29.0
    assert store.heartbeat([kept], 30.0) == []
    now[0] += 1.0
    (again,) = take(store, 2, "lives")
    assert (again.index, again.token, again.attempt) == (dropped.index, dropped.token + 1, 1)
    assert store.heartbeat([kept, dropped], 30.0) == [dropped]
    assert store.item("job", again.index).losses == 1


def test_a_worker_that_lost_its_lease_changes_nothing(store: JobStore, now: list[float]) -> None:
    queue(store)
    (old,) = take(store)
    store.progress(old, 3, 4)
    now[0] += 30.0
    (new,) = take(store)
    store.progress(new, 1, 4)
    before = (store.get("job"), store.item("job", 0), told(store))
    calls: list[Callable[[], None]] = [
        lambda: store.progress(old, 4, 4, preview="data:"),
        lambda: finish(store, old),
        lambda: store.fail(old, "no", retry=False),
        lambda: store.release(old, 1.0, lost=True),
    ]
    for call in calls:
        with pytest.raises(LeaseLost, match="item 0 of job job"):
            call()
    assert (store.get("job"), store.item("job", 0), told(store)) == before
    finish(store, new)
    with pytest.raises(LeaseLost):
        finish(store, old)
    assert store.item("job", 0).file == "job/0-2.png"


def test_a_lease_that_ran_out_counts_until_somebody_takes_the_item(
    store: JobStore, now: list[float]
) -> None:
    queue(store)
    (lease,) = take(store)
    now[0] += 1000.0
    finish(store, lease)
    assert store.get("job").state is State.SUCCEEDED


def test_a_result_published_twice_is_published_once(store: JobStore) -> None:
    queue(store)
    (lease,) = take(store)
    finish(store, lease)
    store.finish(lease, {"seed": 8}, "other", "cd", 6)
    assert store.item("job", 0).file == "job/0-1.png"
    assert [kind for kind, _ in told(store)].count("item") == 1


def test_an_attempt_can_be_put_off(store: JobStore, now: list[float]) -> None:
    queue(store)
    store.fail(take(store)[0], "the archive is away", retry=True, after_s=60)
    now[0] += 59
    assert take(store) == []
    now[0] += 2
    (lease,) = take(store)
    assert lease.attempt == 2
    store.fail(lease, "it is broken", retry=False, after_s=60)
    assert store.item("job", 0).state is State.FAILED


def test_a_poisonous_item_fails_after_three_attempts_and_leaves_the_others(
    store: JobStore,
) -> None:
    queue(store, num_items=2)
    for attempt in (1, 2, 3):
        lease = min(take(store, 2), key=lambda lease: lease.index)
        assert (lease.index, lease.attempt) == (0, attempt)
        store.progress(lease, 2, 4)
        store.fail(lease, "a NaN appeared", retry=True)
    item = store.item("job", 0)
    assert (item.state, item.attempts, item.error) == (State.FAILED, 3, "a NaN appeared")
    assert take(store, 2) == []
    other = Lease("job", 1, 1, "t", "ann", {}, {}, 1)
    finish(store, other)
    job = store.get("job")
    assert (job.state, job.message) == (State.FAILED, "1 of 2 items failed")
    assert (job.num_succeeded, job.num_failed, job.steps_done) == (1, 1, 6)
    item_events = [data for kind, data in told(store) if kind == "item"]
    assert item_events[0] == {
        "index": 0,
        "status": "failed",
        "seed": 100,
        "error": "a NaN appeared",
    }


def test_an_error_that_would_come_back_fails_at_once(store: JobStore) -> None:
    queue(store)
    store.fail(take(store)[0], "too large", retry=False)
    assert store.get("job").state is State.FAILED


def test_dead_workers_are_forgiven_nine_times(store: JobStore, now: list[float]) -> None:
    queue(store)
    for i in range(10):
        (lease,) = take(store)
        assert lease.attempt == 1
        if i % 2:
            store.release(lease, 0.0, lost=True)
        else:
            now[0] += 30.0
    assert take(store) == []
    assert store.item("job", 0).error == "its worker died 10 times"


def test_a_released_item_waits_and_nothing_is_held_against_it(
    store: JobStore, now: list[float]
) -> None:
    queue(store)
    for _ in range(20):  # a full disk, for instance
        store.release(take(store)[0], 5.0, lost=False)
        now[0] += 4.5
        assert take(store) == []
        now[0] += 0.5
    item = store.item("job", 0)
    assert (item.state, item.attempts, item.losses) == (State.QUEUED, 0, 0)


def test_an_owner_whose_items_all_wait_keeps_nobody_out(store: JobStore) -> None:
    for i in range(3):
        queue(store, f"ann-{i}")
    for lease in take(store, 3):
        store.release(lease, 60.0, lost=False)
    queue(store, "zoe", owner="zoe")
    assert [lease.job_id for lease in take(store)] == ["zoe"]


def test_cancel_voids_leases_and_keeps_what_is_done(store: JobStore, now: list[float]) -> None:
    queue(store, num_items=3)
    done, running = take(store, 2)
    finish(store, done)
    store.progress(running, 1, 4, preview="data:")
    now[0] += 1
    job = store.cancel("job")
    assert (job.state, job.finished_at, job.num_succeeded) == (State.CANCELLED, 1001.0, 1)
    states = [item.state for item in store.items("job", 0, 3)]
    assert states == [State.SUCCEEDED, State.CANCELLED, State.CANCELLED]
    assert store.heartbeat([running], 30.0) == [running]
    with pytest.raises(LeaseLost):
        finish(store, running)
    assert take(store, 3) == []
    kinds = [kind for kind, _ in told(store)]
    assert kinds == ["queued", "started", "started", "item", "step", "finished"]
    assert told(store)[-1][1] == {"status": "cancelled", "num_succeeded": 1, "num_failed": 0}
    assert store.cancel("job") == job
    assert len(told(store)) == len(kinds)


def test_only_the_newest_preview_of_a_running_item_is_kept(store: JobStore) -> None:
    queue(store, num_items=2)
    leases = take(store, 2)
    for step in (1, 2, 3):
        for lease in leases:
            store.progress(lease, step, 4, preview=f"data:{lease.index}-{step}")
    shown = [data["image"] for kind, data in told(store) if kind == "preview"]
    assert shown == ["data:0-3", "data:1-3"]
    finish(store, leases[0])
    store.fail(leases[1], "no", retry=False)
    assert "preview" not in dict(told(store))


def test_a_reader_that_resumes_misses_nothing(store: JobStore) -> None:
    queue(store, num_items=20)
    seen: list[int] = []

    def read() -> None:
        while store.get("job").finished_at is None or seen[-1] < store.events("job")[-1].seq:
            seen.extend(event.seq for event in store.events("job", seen[-1] if seen else 0, 3))

    def work(name: str) -> None:
        while store.get("job").finished_at is None:
            for lease in take(store, 2, name):
                store.progress(lease, 1, 4)
                finish(store, lease)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(read), *(pool.submit(work, f"w{i}") for i in range(3))]:
            future.result()
    assert seen == list(range(1, 1 + 1 + 20 * 3 + 1))


def lease_all(url: str, worker: str, other: str) -> list[tuple[int, int]]:
    """What one process gets of a job until nothing is queued: (index, token)."""
    store = JobStore(url)
    store.remember(worker, {})
    while store.recall(other) is None:  # both begin at once
        time.sleep(0.01)
    got: list[tuple[int, int]] = []
    while store.counts()[State.QUEUED]:
        got += [(lease.index, lease.token) for lease in take(store, 3, worker)]
        time.sleep(0.005)  # for the other's turn, where both share a core
    store.close()
    return got


def test_two_processes_never_lease_the_same_item(store: JobStore, store_url: str) -> None:
    queue(store, num_items=40)
    with ProcessPoolExecutor(2, mp_context=SPAWN) as pool:
        one = pool.submit(lease_all, store_url, "one", "two")
        two = pool.submit(lease_all, store_url, "two", "one")
        shares = [one.result(), two.result()]
    assert sorted(shares[0] + shares[1]) == [(i, 1) for i in range(40)]
    assert all(shares)


def lease_and_die(url: str) -> None:
    """Take an item, show progress, and be killed."""
    store = JobStore(url, lambda: 1000.0)
    store.progress(take(store)[0], 3, 4, preview="data:")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_workers_item_is_taken_over_when_its_lease_ends(
    store: JobStore, store_url: str, now: list[float]
) -> None:
    queue(store)
    worker = SPAWN.Process(target=lease_and_die, args=(store_url,))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    now[0] = 1029.9
    assert take(store) == []
    now[0] = 1030.0
    (lease,) = take(store)
    assert (lease.token, store.get("job").steps_done) == (2, 0)
    finish(store, lease)
    assert store.get("job").state is State.SUCCEEDED


def test_many_that_open_an_empty_database_at_once_agree(store_url: str) -> None:
    def settle(i: int) -> dict[str, Any]:
        store = JobStore(store_url)
        kept = store.remember("who", {"first": i})
        assert store.recall("who") == kept
        store.close()
        return kept

    with ThreadPoolExecutor(16) as pool:
        kept = list(pool.map(settle, range(16)))
    assert kept == [kept[0]] * 16


def test_a_fact_that_nobody_settled_is_none(store: JobStore) -> None:
    assert store.recall("who") is None


def test_purge_forgets_what_expired_and_cancels_it_first(store: JobStore, now: list[float]) -> None:
    queue(store, "old", num_items=3)
    leases = take(store, 2)
    finish(store, leases[0])
    now[0] += 1
    queue(store, "young")
    now[0] += DAY - 1
    states: list[State] = []
    assert store.purge(lambda file: states.append(store.get("old").state)) == ["old/0-1.png"]
    assert states == [State.CANCELLED]
    assert [job.id for job in store.list(None, 10)[0]] == ["young"]
    assert store.heartbeat(leases, 30.0) == leases
    with pytest.raises(LeaseLost):
        finish(store, leases[1])
    for call in (store.get, store.events):
        with pytest.raises(NotFound):
            call("old")
    assert store.purge() == []
    assert sum(store.counts().values()) == 1
    queue(store, "old")


def test_a_purge_that_is_cut_short_forgets_no_file(store: JobStore, now: list[float]) -> None:
    queue(store)
    finish(store, take(store)[0])
    now[0] += DAY

    def die(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.purge(die)
    assert store.purge() == ["job/0-1.png"]


def test_counts_are_of_items_in_every_state(store: JobStore) -> None:
    assert set(store.counts().values()) == {0}
    queue(store, "a", num_items=5)
    finished, failed, _ = take(store, 3)
    finish(store, finished)
    store.fail(failed, "no", retry=False)
    queue(store, "b", num_items=4)
    store.cancel("b")
    assert store.counts() == dict(zip(State, (2, 1, 1, 1, 4), strict=True))


def test_no_error_repeats_what_was_asked_for(store: JobStore) -> None:
    spec = {"prompt": CANARY}
    store.create("job", "t", "ann", spec, [spec], DAY)
    (lease,) = take(store)
    nan = {**spec, "scale": float("nan")}
    calls: list[Callable[[], Any]] = [
        lambda: store.create("job", "t", "ann", {**spec, "n": 1}, [spec], DAY),
        lambda: store.create("nan", "t", "ann", nan, [spec], DAY),
        lambda: store.create("nan", "t", "ann", spec, [nan], DAY),
        lambda: store.create("set", "t", "ann", spec, [{CANARY: {1}}], DAY),
        lambda: store.finish(lease, nan, "f", "ab", 1),
        lambda: store.finish(lease, spec, "f", "ab", 2**70),
        lambda: store.progress(lease, 2**70, 1, preview=CANARY),
        lambda: store.list("ann", 1, CANARY),
        lambda: store.get(CANARY, "bob"),
        lambda: store.finish(replace(lease, token=9), spec, CANARY, CANARY, 1),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(REFUSALS) as refusal:
            call()
        assert CANARY not in "".join(traceback.format_exception(refusal.value)), number


def test_no_query_reads_a_whole_table(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    store = JobStore(f"sqlite:///{file}")
    queue(store, num_items=3)
    asked: list[tuple[str, Any]] = []

    def note(_c: Any, _u: Any, sql: str, values: Any, _x: Any, many: bool) -> None:
        asked.append((sql, values[0] if many else values))

    event.listen(Engine, "before_cursor_execute", note)
    lease, _ = take(store, 2)
    store.progress(lease, 1, 4, "data:")
    store.progress(lease, 2, 4, "data:")
    store.heartbeat([lease], 30.0)
    finish(store, lease)
    store.list("ann", 5, store.list("ann", 1)[1])
    store.list(None, 5)
    store.cancel("job")
    store.purge()
    event.remove(Engine, "before_cursor_execute", note)
    store.close()
    connection = sqlite3.connect(file)
    plans = [
        connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)
        for sql, values in asked
        if sql.split()[0] in ("SELECT", "UPDATE", "DELETE", "WITH")
    ]
    lines = [row[3] for plan in plans for row in plan]
    connection.close()
    assert len(lines) > 20
    scans = {line for line in lines if re.match("SCAN (jobs|items|events)", line)}
    assert scans == {"SCAN jobs USING INDEX jobs_by_age"}  # everybody's newest, up to the limit
    assert not [line for line in lines if "TEMP B-TREE FOR ORDER" in line]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u:pw@h/d", "no url"])
def test_a_database_that_processes_cannot_share_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="sqlite:///FILE") as refusal:
        JobStore(url)
    assert "pw@" not in str(refusal.value)


def test_a_job_waits_as_a_whole_and_says_why(store: JobStore, now: list[float]) -> None:
    queue(store, num_items=3)
    queue(store, "other", owner="bob")
    lease = next(each for each in take(store, 2) if each.job_id == "job")
    store.postpone(lease, 5.0, "gates learn")
    assert store.get("job").message == "gates learn"
    assert store.get("job").state == "running"
    assert take(store, 10) == []
    now[0] += 5
    again = take(store, 10)
    assert [(each.index, each.attempt) for each in again] == [(0, 1), (1, 1), (2, 1)]
    assert store.get("job").message == "gates learn"
    store.progress(again[0], 1, 4)
    assert store.get("job").message is None
    with pytest.raises(LeaseLost):
        store.postpone(lease, 5.0, "too late")


def test_what_is_known_of_a_failed_item_is_kept(store: JobStore) -> None:
    queue(store)
    (lease,) = take(store)
    store.fail(lease, "given up", retry=False, record={"accepted": False})
    item = store.item("job", 0)
    assert (item.state, item.error, item.record) == ("failed", "given up", {"accepted": False})
    assert item.file is None
