"""The engine's thread: anybody may submit and cancel, one failure is one failure, hangs show."""

import inspect
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from gen.engine import Engine
from gen.errors import InvalidInput, MedphantomError
from gen.types import Components, ModelCall, Process
from jobs import engine_loop
from jobs.engine_loop import EngineLoop

LONG_S = 20  # never waited for unless something is broken

Start = Callable[..., EngineLoop]


@pytest.fixture
def start() -> Iterator[Start]:
    """Makes loops over components, and closes them."""
    loops: list[EngineLoop] = []

    def make(components: Components, engine: type[Engine] = Engine) -> EngineLoop:
        loops.append(EngineLoop(engine(components)))
        return loops[-1]

    yield make
    for loop in loops:
        loop.close()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loop's clock, which stands still."""
    clock = [1000.0]
    fake = SimpleNamespace(monotonic=lambda: clock[0], sleep=time.sleep)
    monkeypatch.setattr(engine_loop, "time", fake)
    return clock


class Gate:
    """A component that says when a forward is under way, and answers when it may."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, rows: Tensor) -> Tensor:
        self.entered.set()
        assert self.opened.wait(LONG_S)
        return rows


def counting(num_calls: int, value: float = 1.0) -> Process[float]:
    total = 0.0
    for _ in range(num_calls):
        total += float((yield ModelCall("echo", (torch.full((1,), value),))))
    return total


def endless(seen: list[float], closed: threading.Event) -> Process[None]:
    try:
        while True:
            seen.append(float((yield ModelCall("echo", (torch.ones(1),)))))
    finally:
        closed.set()


def echo(rows: Tensor) -> Tensor:
    return rows


def rest(loop: EngineLoop, now: list[float]) -> None:
    """Wait until the thread has nothing to do: then no time that passes is a stall."""
    for _ in range(2000):
        now[0] += 1
        if loop.seconds_stalled() == 0:
            return
        time.sleep(0.005)
    raise AssertionError("an idle loop stalls")


def test_processes_of_many_threads_share_forwards_and_get_their_own_results(start: Start) -> None:
    sizes: list[int] = []
    gate = Gate()

    def counted(rows: Tensor) -> Tensor:
        sizes.append(len(rows))
        return gate(rows)

    loop = start({"echo": counted})
    with ThreadPoolExecutor(16) as pool:
        futures = list(pool.map(lambda i: loop.submit(counting(3, float(i))), range(64)))
    gate.opened.set()
    assert [future.result(LONG_S) for future in futures] == [3.0 * i for i in range(64)]
    assert len(sizes) <= 30  # 192 rows, at most 16 together: 12 would be the fewest
    assert loop.num_live == 0


def test_a_cancelled_process_stops_when_its_forward_returns(start: Start) -> None:
    gate, seen, closed = Gate(), list[float](), threading.Event()
    loop = start({"echo": gate})
    future, other = loop.submit(endless(seen, closed)), loop.submit(counting(1))
    assert gate.entered.wait(LONG_S)
    assert future.cancel()
    gate.opened.set()
    assert closed.wait(LONG_S)
    assert seen == []  # it was not resumed
    assert other.result(LONG_S) == 1
    with pytest.raises(CancelledError):
        future.result(LONG_S)


def test_a_process_that_was_cancelled_between_forwards_is_closed(start: Start) -> None:
    closed = threading.Event()
    loop = start({"echo": echo})
    future = loop.submit(endless([], closed))
    assert not closed.wait(0.05)
    future.cancel()
    assert closed.wait(LONG_S)
    assert loop.submit(counting(2)).result(LONG_S) == 2


def test_threads_that_submit_and_cancel_at_once_leave_nothing_behind(start: Start) -> None:
    loop = start({"echo": echo})

    def use(seed: int) -> None:
        futures = [loop.submit(counting(5, seed)) for _ in range(20)]
        for future in futures[seed % 2 :: 2]:
            future.cancel()
        for future in futures:
            if not future.cancelled():
                assert future.result(LONG_S) == 5 * seed

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(16)))
    loop.submit(counting(1)).result(LONG_S)
    assert loop.num_live == 0


def test_a_failure_is_told_to_its_own_process_only(start: Start) -> None:
    def picky(rows: Tensor) -> Tensor:
        if (rows == 13).any():
            raise ValueError("thirteen")
        return rows

    def stumbling() -> Process[None]:
        yield ModelCall("echo", (torch.ones(1),))
        raise InvalidInput("my own fault")

    loop = start({"echo": picky})
    good = [loop.submit(counting(4, i)) for i in (1.0, 2.0)]
    bad, worse = loop.submit(counting(4, 13.0)), loop.submit(stumbling())
    good.append(loop.submit(counting(4, 3.0)))
    assert [future.result(LONG_S) for future in good] == [4, 8, 12]
    with pytest.raises(ValueError, match="thirteen"):
        bad.result(LONG_S)
    with pytest.raises(InvalidInput, match="my own fault"):
        worse.result(LONG_S)


def test_a_hanging_forward_shows_as_a_stall_that_grows(start: Start, now: list[float]) -> None:
    gate = Gate()
    loop = start({"echo": gate})
    rest(loop, now)
    future = loop.submit(counting(1))
    assert gate.entered.wait(LONG_S)
    for seconds in (30, 500):
        now[0] += seconds
        assert seconds <= loop.seconds_stalled() < float("inf")
    gate.opened.set()
    future.result(LONG_S)


def test_work_after_a_long_rest_is_no_stall(start: Start, now: list[float]) -> None:
    """Between its submission and the thread's waking up the process is live, and nothing hangs."""
    stalls: list[float] = []

    class Watched(Engine):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            ticket = super().submit(*args, **kwargs)
            stalls.append(loop.seconds_stalled())
            return ticket

    loop = start({"echo": echo}, engine=Watched)
    rest(loop, now)
    now[0] += 1e6
    loop.submit(counting(1)).result(LONG_S)
    assert stalls == [0]


def test_a_thread_that_has_ended_is_stalled_for_ever(start: Start) -> None:
    loop = start({"echo": echo})
    loop.close()
    assert loop.seconds_stalled() == float("inf")


def test_closing_lets_work_finish_for_a_while(start: Start) -> None:
    gate = Gate()
    loop = start({"echo": gate})
    futures = [loop.submit(counting(20)) for _ in range(3)]
    assert gate.entered.wait(LONG_S)
    closing = threading.Thread(target=loop.close, args=(LONG_S,))
    closing.start()
    gate.opened.set()
    closing.join()
    assert [future.result(0) for future in futures] == [20, 20, 20]


def test_closing_waits_for_a_process_that_is_just_starting(start: Start) -> None:
    starting, may_start = threading.Event(), threading.Event()

    def slow_start() -> Process[str]:
        starting.set()
        assert may_start.wait(LONG_S)
        yield ModelCall("echo", (torch.ones(1),))
        return "finished"

    loop = start({"echo": echo})
    future = loop.submit(slow_start())
    assert starting.wait(LONG_S)
    assert loop.num_live == 1
    closing = threading.Thread(target=loop.close, args=(LONG_S,))
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    may_start.set()
    assert future.result(LONG_S) == "finished"
    closing.join()


def test_what_is_submitted_at_the_last_moment_is_not_forgotten(start: Start) -> None:
    """The thread has seen that nothing is left; then work comes, then the end."""
    late: list[Future[float]] = []
    armed = threading.Event()

    class Interrupted(Engine):
        def step(self) -> bool:
            more = super().step()
            if armed.is_set() and not more and not late:
                late.append(loop.submit(counting(3)))
                closing.start()
                closing.join(0.05)
            return more

    loop = start({"echo": echo}, engine=Interrupted)
    closing = threading.Thread(target=loop.close, args=(LONG_S,))
    armed.set()
    loop.submit(counting(1)).result(LONG_S)
    closing.join(LONG_S)
    assert late[0].result(0) == 3


def test_closing_then_cancels_what_is_left(start: Start) -> None:
    closed = threading.Event()
    loop = start({"echo": echo})
    running = loop.submit(endless([], closed))
    loop.close(0.05)
    assert closed.is_set()
    with pytest.raises(CancelledError):
        running.result(0)


def test_a_closed_loop_takes_nothing_and_closes_what_it_refuses(start: Start) -> None:
    loop = start({"echo": echo})
    loop.close()
    process = counting(1)
    with pytest.raises(MedphantomError, match="closing"):
        loop.submit(process)
    assert inspect.getgeneratorstate(process) == inspect.GEN_CLOSED
    assert loop.num_live == 0


def test_the_wait_for_the_first_forward_is_told_once(start: Start) -> None:
    waits: list[float] = []
    loop = start({"echo": echo})
    loop.submit(counting(3), waited=waits.append).result(LONG_S)
    loop.submit(counting(0), waited=waits.append).result(LONG_S)  # never waited for any
    assert len(waits) == 1
    assert 0 <= waits[0] < LONG_S
