"""A worker between a real store, a real folder and whoever makes the items."""

import asyncio
import errno
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy.exc import OperationalError

from gen.errors import Busy, InvalidInput, ModelRefused, NotFound
from gen.sharing import BATCH
from jobs import worker as worker_module
from jobs.job import MAX_ATTEMPTS, MAX_LOSSES, Item, Lease
from jobs.sink import Sink
from jobs.store import JobStore, State
from jobs.tasks.task import Made
from jobs.work import Done, Failed, News, Preview, Started, Step, Work
from jobs.worker import Execute, Worker

T = TypeVar("T")
CANARY = "canary" + "-7f3a"  # put together here, so that no source line in a log has it
LIMIT_S = 30  # never waited for unless something is broken
DAY = 86400.0


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for longer than a test needs."""
    for name in ("POLL_S", "AFTER_LOSS_S", "WHEN_FULL_S", "PURGE_S"):
        monkeypatch.setattr(worker_module, name, 0.01)


@pytest.fixture
def later() -> list[float]:
    """Seconds that the store's clock is ahead of the real one."""
    return [0.0]


@pytest.fixture
def store(tmp_path: Path, later: list[float]) -> Iterator[JobStore]:
    """A store without jobs."""
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.db'}", lambda: time.time() + later[0])
    yield store
    store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where results are kept."""
    return tmp_path / "results"


@pytest.fixture
def sink(folder: Path) -> Sink:
    """An empty folder."""
    return Sink(str(folder))


@pytest.fixture
def hire(store: JobStore, sink: Sink) -> Callable[..., Worker]:
    """A function from an `execute` to a worker."""

    def make(execute: Execute, name: str = "w", slots: int = 4, lease_s: float = 60.0) -> Worker:
        return Worker(store, sink, execute, name, slots, lease_s)

    return make


Hire = Callable[..., Worker]


def queue(store: JobStore, job_id: str = "job", num_items: int = 1, ttl_s: float = DAY) -> None:
    items = [{"prompt": CANARY, "seed": i} for i in range(num_items)]
    store.create(job_id, "text-to-cxr", "ann", {"prompt": CANARY}, items, ttl_s)


def done(work: Work, content: str = "image") -> Done:
    (index,) = work.items
    data = f"{content} {work.request_id} {index}".encode()
    return Done(index, Made(data, "image/png", {"seed": work.items[index]["seed"]}))


async def paint(work: Work) -> AsyncIterator[News]:
    """Make an item at once."""
    (index,) = work.items
    yield Started(index)
    yield done(work)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(coroutine, LIMIT_S))


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def working(condition: Callable[[], object], *workers: Worker) -> None:
    """Let workers work until something is so, and stop them."""
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        await until(condition)
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def ended(store: JobStore, job_id: str = "job") -> Callable[[], bool]:
    return lambda: store.get(job_id).state.is_final


def item(store: JobStore, index: int = 0) -> Item:
    return store.item("job", index)


def names(folder: Path) -> list[str]:
    found = os.walk(folder)  # which does not mind that a folder goes meanwhile
    return sorted(
        str((Path(place) / name).relative_to(folder)) for place, _, files in found for name in files
    )


def told(store: JobStore, kind: str) -> list[dict[str, Any]]:
    return [event.data for event in store.events("job") if event.kind == kind]


def broken_at_first(real: Callable[..., T], error: Exception, times: int) -> Callable[..., T]:
    """A call that raises so many times, and then works."""
    left = [times]

    def call(*args: Any, **kwargs: Any) -> T:
        if left[0]:
            left[0] -= 1
            raise error
        return real(*args, **kwargs)

    return call


def raising_at_first(error: Exception, times: int, seen: list[Work]) -> Execute:
    """An `execute` that raises so many times, and then makes its item."""

    async def execute(work: Work) -> AsyncIterator[News]:
        seen.append(work)
        yield Started(*work.items)
        if len(seen) <= times:
            raise error
        yield done(work)

    return execute


def test_every_result_is_published_once_and_no_more_run_than_there_are_slots(
    store: JobStore, sink: Sink, folder: Path, hire: Hire
) -> None:
    running, most, seen = 0, 0, Counter[int]()

    async def execute(work: Work) -> AsyncIterator[News]:
        nonlocal running, most
        seen.update(list(work.items))
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        yield done(work)
        running -= 1

    queue(store, num_items=7)
    run(working(ended(store), hire(execute, slots=3)))
    assert store.get("job").state is State.SUCCEEDED
    assert seen == Counter(range(7))
    assert most == 3
    assert sorted(event["index"] for event in told(store, "item")) == list(range(7))
    kept = store.items("job", 0, 10)
    assert names(folder) == sorted(str(each.file) for each in kept)
    for index, each in enumerate(kept):
        assert sink.get(str(each.file), str(each.sha256)) == f"image job {index}".encode()
        assert each.record == {"seed": index}
        assert each.size == len(f"image job {index}")


def test_an_item_is_asked_for_as_exact_work_below_live_requests(
    store: JobStore, hire: Hire
) -> None:
    asked: list[Work] = []
    queue(store, num_items=2)
    run(working(ended(store), hire(raising_at_first(ValueError(), 0, asked))))
    for index, work in enumerate(sorted(asked, key=lambda work: min(work.items))):
        assert (work.task, work.request_id, work.owner) == ("text-to-cxr", "job", "ann")
        assert (work.priority, work.exact) == (BATCH, True)
        assert work.spec == {"prompt": CANARY}
        assert work.items == {index: {"prompt": CANARY, "seed": index}}


def test_several_workers_make_each_item_once(store: JobStore, hire: Hire) -> None:
    made: list[tuple[str, int]] = []

    async def execute(work: Work) -> AsyncIterator[News]:
        made.extend((work.request_id, index) for index in work.items)
        yield done(work)

    for job_id in ("job", "job-2"):
        queue(store, job_id, num_items=10)
    workers = [hire(execute, f"w{i}", slots=2) for i in range(4)]
    run(working(lambda: ended(store)() and ended(store, "job-2")(), *workers))
    assert sorted(made) == [(job_id, i) for job_id in ("job", "job-2") for i in range(10)]


def test_steps_and_previews_are_written_down_as_they_come(store: JobStore, hire: Hire) -> None:
    go_on = asyncio.Event()

    async def execute(work: Work) -> AsyncIterator[News]:
        (index,) = work.items
        yield Started(index)
        yield Step(index, 3, 9)
        yield Preview(index, 4, 9, b"png")
        await go_on.wait()
        yield done(work)

    queue(store)

    async def watch() -> None:
        working_on = asyncio.create_task(working(ended(store), hire(execute)))
        await until(lambda: told(store, "preview"))
        assert told(store, "step")[0] == {"index": 0, "step": 3, "num_steps": 9}
        assert told(store, "preview")[0]["image"] == "data:image/png;base64,cG5n"
        assert (item(store).steps_done, item(store).num_steps) == (4, 9)
        go_on.set()
        await working_on

    run(watch())


def test_what_was_cancelled_meanwhile_is_not_published_and_its_file_goes(
    store: JobStore, folder: Path, hire: Hire
) -> None:
    async def execute(work: Work) -> AsyncIterator[News]:
        yield Started(*work.items)
        store.cancel("job")
        yield done(work)
        raise AssertionError("it went on")

    queue(store)
    worker = hire(execute)
    run(working(lambda: ended(store)() and not worker._running, worker))
    assert (item(store).state, item(store).file) == (State.CANCELLED, None)
    assert names(folder) == []


@pytest.mark.parametrize("theirs", ["image", "other image"])
def test_whoever_lost_a_lease_leaves_the_winners_file_alone(
    store: JobStore,
    sink: Sink,
    folder: Path,
    hire: Hire,
    later: list[float],
    theirs: str,
) -> None:
    """A second worker takes over and ends first, with the same file or, on another GPU, not."""

    async def execute(work: Work) -> AsyncIterator[News]:
        yield Started(*work.items)
        later[0] += 100
        (lease,) = store.lease("rival", 1, 60.0)
        made = done(work, theirs).made
        kept = sink.put("job", 0, made.data, made.media_type)
        store.finish(lease, {"seed": 0}, kept.file, kept.sha256, kept.size)
        yield done(work)

    queue(store)
    worker = hire(execute)
    run(working(lambda: ended(store)() and not worker._running, worker))
    assert sink.get(str(item(store).file), str(item(store).sha256)) == f"{theirs} job 0".encode()
    assert names(folder) == [item(store).file]
    assert len(told(store, "item")) == 1


def test_a_file_stays_while_the_winner_is_about_to_make_the_same(
    store: JobStore, sink: Sink, hire: Hire, later: list[float]
) -> None:
    taken: list[Lease] = []

    async def execute(work: Work) -> AsyncIterator[News]:
        yield Started(*work.items)
        later[0] += 100
        taken.extend(store.lease("rival", 1, 60.0))
        yield done(work)

    queue(store)
    worker = hire(execute)
    run(working(lambda: taken and not worker._running, worker))
    made = done(Work("t", "job", "ann", {}, {0: {"seed": 0}})).made
    kept = sink.put("job", 0, made.data, made.media_type)
    store.finish(taken[0], {"seed": 0}, kept.file, kept.sha256, kept.size)
    assert sink.get(kept.file, kept.sha256) == made.data


def test_work_on_a_cancelled_job_is_stopped_by_the_next_heartbeat(
    store: JobStore, hire: Hire
) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def execute(work: Work) -> AsyncIterator[News]:
        yield Started(*work.items)
        begun.set()
        try:
            await asyncio.sleep(LIMIT_S)
        finally:
            stopped.set()

    queue(store)

    async def cancel() -> None:
        working_on = asyncio.create_task(working(stopped.is_set, hire(execute, lease_s=0.3)))
        await begun.wait()
        store.cancel("job")
        await working_on

    run(cancel())
    assert item(store).losses == 0


def test_heartbeats_keep_a_lease_far_beyond_its_length(
    store: JobStore, hire: Hire, later: list[float]
) -> None:
    async def execute(work: Work) -> AsyncIterator[News]:
        yield Started(*work.items)
        for _ in range(4):
            later[0] += 50  # of the 60 that a lease lasts
            await worker._beat()
            assert not store.lease("rival", 1, 60.0)
        yield done(work)

    queue(store)
    worker = hire(execute)
    run(working(ended(store), worker))
    assert (item(store).state, item(store).losses) == (State.SUCCEEDED, 0)


def test_a_job_that_is_cancelled_while_its_file_is_written_leaves_none(
    store: JobStore, sink: Sink, folder: Path, hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, may_write, written = (threading.Event() for _ in range(3))
    put = sink.put

    def slowly(*args: Any) -> Any:
        writing.set()
        assert may_write.wait(LIMIT_S)
        kept = put(*args)
        written.set()
        return kept

    monkeypatch.setattr(sink, "put", slowly)
    queue(store)
    worker = hire(paint, lease_s=0.3)

    async def cancel() -> None:
        working_on = asyncio.create_task(
            working(lambda: written.is_set() and not names(folder), worker)
        )
        await until(writing.is_set)
        store.cancel("job")
        await until(lambda: any(task.cancelling() for task in worker._running))
        may_write.set()
        await working_on

    run(cancel())
    assert item(store).file is None


def test_a_full_disk_never_fails_an_item(
    store: JobStore, sink: Sink, hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(sink, "put", broken_at_first(sink.put, full, 2 * MAX_LOSSES))
    queue(store)
    run(working(ended(store), hire(paint)))
    assert item(store).state is State.SUCCEEDED
    assert (item(store).attempts, item(store).losses) == (0, 0)


def test_a_file_that_the_maker_of_images_misses_is_no_full_disk(
    store: JobStore, hire: Hire
) -> None:
    """It would be tried for ever."""
    missing = FileNotFoundError(errno.ENOENT, "no such model")
    queue(store)
    run(working(ended(store), hire(raising_at_first(missing, 2, []))))
    assert (item(store).state, item(store).losses) == (State.SUCCEEDED, 2)


@pytest.mark.parametrize("error", [InvalidInput("width is 33"), ModelRefused("width is 33")])
def test_what_cannot_be_made_fails_at_once_with_its_reason(
    store: JobStore, hire: Hire, error: Exception
) -> None:
    seen: list[Work] = []
    queue(store)
    run(working(ended(store), hire(raising_at_first(error, 5, seen))))
    assert len(seen) == 1
    assert (item(store).state, item(store).error) == (State.FAILED, "width is 33")
    assert told(store, "item")[0]["error"] == "width is 33"


@pytest.mark.parametrize(("retry", "tries"), [(True, MAX_ATTEMPTS), (False, 1)])
def test_an_item_that_fails_is_tried_again_if_that_may_help(
    store: JobStore, hire: Hire, retry: bool, tries: int
) -> None:
    seen: list[Work] = []

    async def execute(work: Work) -> AsyncIterator[News]:
        seen.append(work)
        (index,) = work.items
        yield Failed(index, "ValueError while sampling", retry)

    queue(store, num_items=2)
    run(working(ended(store), hire(execute)))
    assert len(seen) == 2 * tries
    assert [each.state for each in store.items("job", 0, 2)] == [State.FAILED] * 2
    assert (item(store).error, item(store).losses) == ("ValueError while sampling", 0)


def test_a_failed_item_leaves_the_others_their_results(store: JobStore, hire: Hire) -> None:
    async def execute(work: Work) -> AsyncIterator[News]:
        if 1 in work.items:
            yield Failed(1, "its size is impossible", retry=False)
        else:
            yield done(work)

    queue(store, num_items=3)
    run(working(ended(store), hire(execute)))
    states = [each.state for each in store.items("job", 0, 3)]
    assert states == [State.SUCCEEDED, State.FAILED, State.SUCCEEDED]


def test_a_foreign_error_is_a_loss_and_ten_are_enough(
    store: JobStore, hire: Hire, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Work] = []
    queue(store)
    with caplog.at_level(logging.DEBUG):
        error = RuntimeError(f"the actor died of {CANARY}")
        run(working(ended(store), hire(raising_at_first(error, MAX_LOSSES, seen))))
    assert len(seen) == MAX_LOSSES
    assert (item(store).state, item(store).attempts) == (State.FAILED, 0)
    assert item(store).error == f"its worker died {MAX_LOSSES} times"
    assert "RuntimeError" in caplog.text
    assert CANARY not in caplog.text


def test_news_that_end_before_the_item_are_a_loss(store: JobStore, hire: Hire) -> None:
    seen: list[Work] = []

    async def execute(work: Work) -> AsyncIterator[News]:
        seen.append(work)
        yield Started(*work.items)
        if len(seen) > 1:
            yield done(work)

    queue(store)
    run(working(ended(store), hire(execute)))
    assert (item(store).state, item(store).losses) == (State.SUCCEEDED, 1)


def test_an_item_waits_as_long_as_busy_samplers_say(
    store: JobStore, hire: Hire, later: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Work] = []
    polls = Counter[str]()
    lease = store.lease

    def counted(*args: Any) -> Any:
        polls["lease"] += 1
        return lease(*args)

    monkeypatch.setattr(store, "lease", counted)
    busy = Busy("every sampler is full", retry_after_s=5000, reason="queue")
    queue(store)

    async def wait() -> None:
        working_on = asyncio.create_task(
            working(ended(store), hire(raising_at_first(busy, MAX_LOSSES + 2, seen)))
        )
        for num_tries in range(1, MAX_LOSSES + 3):
            while len(seen) < num_tries or item(store).state is not State.QUEUED:
                await asyncio.sleep(0.005)
            polls.clear()
            await until(lambda: polls["lease"] > 2)
            assert len(seen) == num_tries
            later[0] += 5001
        await working_on

    run(wait())
    assert item(store).state is State.SUCCEEDED
    assert (item(store).attempts, item(store).losses) == (0, 0)


def test_stopping_gives_back_at_once_what_is_under_way(store: JobStore, hire: Hire) -> None:
    begun, stopped = Counter[str](), Counter[str]()

    async def execute(work: Work) -> AsyncIterator[News]:
        begun["items"] += 1
        try:
            yield Started(*work.items)
            await asyncio.sleep(LIMIT_S)
        finally:
            stopped["items"] += 1

    queue(store, num_items=3)
    run(working(lambda: begun["items"] == 3, hire(execute)))
    assert stopped["items"] == 3
    leases = store.lease("other", 3, 60.0)
    assert [lease.index for lease in leases] == [0, 1, 2]
    assert [each.losses for each in store.items("job", 0, 3)] == [0, 0, 0]


def test_what_is_leased_at_the_moment_of_stopping_is_given_back_too(
    store: JobStore, hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, may_return, lease = threading.Event(), threading.Event(), store.lease

    def slowly(*args: Any) -> Any:
        leases = lease(*args)
        taken.set()
        assert may_return.wait(LIMIT_S)
        return leases

    queue(store, num_items=2)

    async def stop() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(store, "lease", slowly)
            task = asyncio.create_task(hire(paint).run())
            await until(taken.is_set)
            task.cancel()
            await asyncio.sleep(0.05)
            may_return.set()
            await asyncio.gather(task, return_exceptions=True)

    run(stop())
    assert [lease.index for lease in store.lease("other", 2, 60.0)] == [0, 1]
    assert item(store).losses == 0


@pytest.mark.parametrize("call", ["lease", "heartbeat", "purge", "finish", "progress"])
def test_a_database_that_is_away_for_a_moment_does_not_end_the_worker(
    store: JobStore,
    hire: Hire,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
) -> None:
    async def execute(work: Work) -> AsyncIterator[News]:
        (index,) = work.items
        yield Step(index, 1, 2)
        await asyncio.sleep(0.15)  # of which a heartbeat comes in
        yield done(work)

    away = OperationalError(f"SELECT {CANARY}", {}, Exception("connection refused"))
    monkeypatch.setattr(store, call, broken_at_first(getattr(store, call), away, 3))
    queue(store)
    run(working(ended(store), hire(execute, lease_s=0.3)))
    assert item(store).state is State.SUCCEEDED
    assert CANARY not in caplog.text


def test_a_lease_that_cannot_be_given_back_runs_out_by_itself(
    store: JobStore, hire: Hire, monkeypatch: pytest.MonkeyPatch, later: list[float]
) -> None:
    away = OperationalError("UPDATE", {}, Exception("connection refused"))
    monkeypatch.setattr(store, "release", broken_at_first(store.release, away, 1))
    seen: list[Work] = []
    queue(store)

    async def outlive() -> None:
        execute = raising_at_first(RuntimeError("died"), 1, seen)
        working_on = asyncio.create_task(working(ended(store), hire(execute)))
        await until(lambda: seen)
        await asyncio.sleep(0.1)
        assert item(store).state is State.RUNNING
        later[0] += 61
        await working_on

    run(outlive())
    assert (item(store).state, len(seen)) == (State.SUCCEEDED, 2)


def test_results_of_expired_jobs_are_deleted(
    store: JobStore, sink: Sink, folder: Path, hire: Hire, later: list[float]
) -> None:
    def is_forgotten() -> bool:
        try:
            store.get("job")
        except NotFound:
            return True
        return False

    queue(store, num_items=3, ttl_s=100)
    queue(store, "job-2", ttl_s=DAY)
    run(working(lambda: ended(store)() and ended(store, "job-2")(), hire(paint)))
    assert len(names(folder)) == 4
    later[0] += 101
    run(working(is_forgotten, hire(paint)))
    assert [name.split("/")[0] for name in names(folder)] == ["job-2"]


def test_a_file_that_could_not_be_deleted_is_tried_again(
    store: JobStore,
    sink: Sink,
    folder: Path,
    hire: Hire,
    later: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue(store, num_items=3, ttl_s=100)
    run(working(ended(store), hire(paint)))
    later[0] += 101
    busy = OSError(errno.EIO, "Input/output error")
    monkeypatch.setattr(sink, "delete", broken_at_first(sink.delete, busy, 2))
    run(working(lambda: not names(folder), hire(paint)))


def test_an_unfinished_job_that_expires_is_stopped(
    store: JobStore, folder: Path, hire: Hire, later: list[float]
) -> None:
    stopped = asyncio.Event()

    async def execute(work: Work) -> AsyncIterator[News]:
        yield Started(*work.items)
        later[0] = 101
        try:
            await asyncio.sleep(LIMIT_S)
        finally:
            stopped.set()

    queue(store, ttl_s=100)
    run(working(stopped.is_set, hire(execute, lease_s=0.3)))
    with pytest.raises(NotFound):
        store.get("job")
    assert names(folder) == []
