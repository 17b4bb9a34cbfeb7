"""Places of live requests: each owner has its own, waits for itself, and is told for how long."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from gen.errors import Busy
from serve import admission
from serve.admission import LONGEST_RETRY_S, Admission

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(coroutine, 20))


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock that measures requests."""
    clock = [0.0]
    monkeypatch.setattr(admission, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    return clock


class Crowd:
    """Requests that each hold a place until they are let go."""

    def __init__(self, door: Admission) -> None:
        self.door = door
        self.inside: list[str] = []
        self.leave = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def send(self, owner: str, count: int = 1) -> None:
        self.tasks += [asyncio.create_task(self._request(owner)) for _ in range(count)]
        for _ in range(5):
            await asyncio.sleep(0)

    async def _request(self, owner: str) -> None:
        async with self.door.place(owner):
            self.inside.append(owner)
            await self.leave.wait()


@asynccontextmanager
async def crowd(door: Admission) -> AsyncIterator[Crowd]:
    people = Crowd(door)
    try:
        yield people
    finally:
        people.leave.set()
        await asyncio.gather(*people.tasks, return_exceptions=True)


def test_an_owner_has_so_many_places_and_the_rest_wait_then_go_on() -> None:
    async def scene() -> None:
        async with crowd(Admission(2, 3)) as people:
            await people.send("ann", 5)
            assert people.inside == ["ann"] * 2
            people.leave.set()
            await asyncio.gather(*people.tasks)
            assert people.inside == ["ann"] * 5

    run(scene())


def test_who_would_wait_behind_a_full_queue_is_turned_away_at_once() -> None:
    async def scene() -> None:
        door = Admission(2, 1)
        async with crowd(door) as people:
            await people.send("ann", 3)
            with pytest.raises(Busy, match="3 requests of yours") as refusal:
                async with door.place("ann"):
                    pass
            assert refusal.value.reason == "key"
            assert refusal.value.retry_after_s >= 1

    run(scene())


def test_a_flood_of_one_owner_takes_no_place_of_anothers() -> None:
    async def scene() -> None:
        door = Admission(2, 1)
        async with crowd(door) as people:
            await people.send("ann", 30)
            await people.send("bob", 2)
            assert people.inside.count("bob") == 2

    run(scene())


def test_whoever_gives_up_waiting_leaves_the_queue() -> None:
    async def scene() -> None:
        door = Admission(1, 1)
        async with crowd(door) as people:
            await people.send("ann", 2)
            people.tasks[1].cancel()
            await people.send("ann")
            assert not people.tasks[2].done()  # there was room in the queue again
            people.leave.set()
            await people.tasks[2]
            assert people.inside == ["ann"] * 2

    run(scene())


def test_a_request_that_fails_gives_its_place_back() -> None:
    async def scene() -> None:
        door = Admission(1, 0)
        for _ in range(3):
            with pytest.raises(ValueError, match="mine"):
                async with door.place("ann"):
                    raise ValueError("mine")
        async with door.place("ann"):
            pass

    run(scene())


def test_nothing_is_kept_of_owners_who_are_gone() -> None:
    async def scene() -> Admission:
        door = Admission(1, 1)
        for i in range(100):
            async with door.place(f"owner-{i}"):
                pass
        async with crowd(door) as people:
            await people.send("ann", 5)
        return door

    door = run(scene())
    assert not door._present
    assert not door._semaphores


def test_the_advice_grows_with_the_queue_and_with_what_requests_took(now: list[float]) -> None:
    async def scene() -> tuple[list[float], float]:
        door = Admission(2, 100)
        for _ in range(30):
            async with door.place("ann"):
                now[0] += 4.0
        advice = []
        async with crowd(door) as people:
            for _ in range(4):
                await people.send("ann", 4)
                advice.append(door.retry_after_s("ann"))
            await people.send("ann", 80)
            return advice, door.retry_after_s("ann")

    advice, longest = run(scene())
    # 4, 8, 12 and 16 there, 2 at once, 4 s each: when the one after the last would get a place
    assert advice == [6, 14, 22, 30]
    assert longest == LONGEST_RETRY_S


def test_the_average_follows_recent_requests_and_forgets_old_ones(now: list[float]) -> None:
    async def scene() -> list[float]:
        door, advice = Admission(1, 0), []
        for seconds in (50.0, 2.0):
            for _ in range(40):
                async with door.place("ann"):
                    now[0] += seconds
            advice.append(door.retry_after_s("ann"))
        return advice

    assert run(scene()) == [50, 2 + 1]  # rounded up


def test_waiting_is_not_counted_as_work(now: list[float]) -> None:
    async def scene() -> float:
        door = Admission(1, 5)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(door.place("ann"))
            waiting = asyncio.create_task(_pass(door))
            await asyncio.sleep(0)
            now[0] += 1.0
        await waiting
        return door._seconds

    async def _pass(door: Admission) -> None:
        async with door.place("ann"):
            now[0] += 1.0

    assert run(scene()) == pytest.approx(1.0)
