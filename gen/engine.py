"""Answer the network calls of many sampling processes, sharing each forward between them.

`run` drives one process. `Engine` drives many, a forward at a time: the process whose turn it is
leads, and every call that fits beside its own (same component, trailing shapes, dtypes, devices)
rides along, up to a budget of rows. A newcomer joins at the next forward. How the rows are shared,
so that nobody starves, is in `gen.sharing`.
"""

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Generic, cast

import torch
from torch import Tensor

from gen.errors import InvalidInput, MedphantomError, ProcessCancelled
from gen.sharing import BATCH, LIVE, choose
from gen.types import Components, ModelCall, Process, T

__all__ = ["BATCH", "LIVE", "Engine", "Ticket", "run"]

OnForward = Callable[[str, int, float], None]
"""(component, rows with padding, seconds) of a forward that is done."""


class Ticket(Generic[T]):
    """A submitted process: ask it how far it is, for its result, or to stop. Any thread may."""

    def __init__(self, on_cancel: Callable[[], None]) -> None:
        self.steps_done = 0  # network calls answered so far
        self.waited_s: float | None = None  # from submission to the first answered call
        self._submitted = time.monotonic()
        self._on_cancel = on_cancel
        self.cancelled = False
        self._finished = False
        self._value: T | None = None
        self._error: Exception | None = None

    def done(self) -> bool:
        """Whether the process has returned, failed or been closed."""
        return self._finished

    def cancel(self) -> None:
        """Close the process: now, or as soon as the forward under way returns."""
        if not self._finished:
            self.cancelled = True
            self._on_cancel()

    def result(self) -> T:
        """Return what the process returned, or raise what it raised."""
        if self.cancelled:
            raise ProcessCancelled(
                f"the process was cancelled after {self.steps_done} answered calls; submit it anew"
            ) from self._error
        if not self._finished:
            raise InvalidInput(
                f"result() was asked after {self.steps_done} answered calls, but the process is "
                "not done; call Engine.step() until done() is True"
            )
        if self._error is not None:
            raise self._error
        return cast(T, self._value)


class _Live:
    """A process on its way: the call it waits for and what is answered of it."""

    call: ModelCall  # once started

    def __init__(
        self,
        ticket: Ticket[Any],
        process: Process[Any],
        components: Components,
        arrived: int,
        priority: int,
        owner: Hashable,
        exact: bool,
    ) -> None:
        self.ticket = ticket
        self.process = process
        self.components = components
        self.arrived = arrived  # after which forward
        self.turn = 0  # number of the forward that served it last
        self.priority = priority
        self.owner = owner
        self.exact = exact
        self.answers: list[Tensor] = []
        self.num_waiting = 0  # rows of the call not answered yet

    def group(self) -> tuple[object, ...]:
        """Calls of one group may share a forward; one that needs autograd shares with nobody."""
        alone = id(self) if self.call.needs_grad else None
        return (
            self.call.component,
            id(self.components),
            alone,
            *((r.shape[1:], r.dtype, r.device) for r in self.call.rows),
        )

    def is_whole(self) -> bool:
        """A call that is recorded by autograd is answered in one piece."""
        return self.call.needs_grad

    def next_rows(self, num_rows: int) -> tuple[Tensor, ...]:
        start = self.call.num_rows - self.num_waiting
        return tuple(row[start : start + num_rows] for row in self.call.rows)

    def receive(self, answer: Tensor) -> None:
        """Take the answer to the next rows; when it is the last, resume the process."""
        self.answers.append(answer)
        self.num_waiting -= len(answer)
        if self.num_waiting == 0:
            if self.ticket.waited_s is None:
                self.ticket.waited_s = time.monotonic() - self.ticket._submitted
            self.ticket.steps_done += 1
            # cat copies: the process must not share memory with others of its forward
            self.resume(lambda: self.process.send(torch.cat(self.answers)))

    def resume(self, proceed: Callable[[], ModelCall]) -> None:
        """Let the process run to its next call or its end; its errors stay its own."""
        if self.ticket.cancelled:
            return self.close()
        try:
            with torch.enable_grad():
                self.call = proceed()
            if not isinstance(self.call, ModelCall):
                raise InvalidInput(f"a process yielded {self.call!r}; it must yield a ModelCall")
            self.answers, self.num_waiting = [], self.call.num_rows
        except StopIteration as stop:
            self.ticket._value = stop.value
            self.ticket._finished = True
        except Exception as error:
            self.ticket._error = error
            self.close()

    def close(self) -> None:
        try:
            self.process.close()
        except Exception as error:
            self.ticket._error = error
        self.ticket._finished = True


_Share = tuple[_Live, int]  # a process and how many of its rows go into a forward


class Engine:
    """Run many processes at once. One thread calls `step`; any thread may submit and cancel.

    Args:
        components: the networks by name, called as `component(*rows)`, without autograd unless
            the call needs it; processes may bring others.
        max_rows: most rows of one forward; only a call that needs autograd is never split.
        pad_rows: fill each forward up to 1, 2, 4, 8, ... rows by repeating one, so that compiled
            networks see few shapes; the padding is dropped from the answer.
        exact_rows: a forward with rows of an exact process has at least so many. Numbers depend on
            the shape of a forward in their last bits, not on who shares it, so a process gets the
            same bits in any company if every power of two from here to `max_rows` gives the same.
        shared_rows: most rows of a forward while a live process is beside another owner's or
            priority's, twice as many where another owner is due; None is `max_rows`. What is nearly
            as fast as a lone request's own rows keeps one owner's load from slowing another.
        on_forward: told of every forward.
    """

    def __init__(
        self,
        components: Components,
        max_rows: int = 16,
        pad_rows: bool = True,
        *,
        exact_rows: int = 1,
        shared_rows: int | None = None,
        on_forward: OnForward = lambda *_: None,
    ) -> None:
        if max_rows < 1:
            raise InvalidInput(f"max_rows is {max_rows}, but a forward needs a row; try 16")
        for name, rows in (("exact_rows", exact_rows), ("shared_rows", shared_rows or max_rows)):
            if not 1 <= rows <= max_rows:
                raise InvalidInput(f"{name} is {rows}, but must be from 1 to max_rows, {max_rows}")
        self._components = components
        self._max_rows = max_rows
        self._pad_rows = pad_rows
        self._exact_rows = exact_rows
        self._shared_rows = shared_rows or max_rows
        self._on_forward = on_forward
        self._turns: dict[Hashable, int] = {}  # the forward that served an owner last
        self._arrivals: deque[_Live] = deque()  # not started yet; any thread appends
        self._live: list[_Live] = []
        self._num_forwards = 0
        self._stepping = threading.Lock()  # a running process cannot be closed

    @property
    def num_live(self) -> int:
        """Processes that are submitted and not done."""
        return len(self._live) + len(self._arrivals)

    def submit(
        self,
        process: Process[T],
        priority: int = LIVE,
        *,
        owner: Hashable = None,
        exact: bool = False,
        components: Components | None = None,
    ) -> Ticket[T]:
        """Let the process join at the next step.

        Args:
            process: not started.
            priority: the lower the number, the earlier.
            owner: whose process it is; owners share the forwards evenly.
            exact: give it the same bits in any company, see `exact_rows`.
            components: of its model, if not the engine's; processes share forwards only with
                those that brought the same object.
        """
        ticket: Ticket[T] = Ticket(self._close_cancelled_unless_stepping)
        networks = self._components if components is None else components
        arrived = self._num_forwards
        self._arrivals.append(_Live(ticket, process, networks, arrived, priority, owner, exact))
        return ticket

    def step(self) -> bool:
        """Run one shared forward and resume the processes it answers; False when none is live."""
        with self._stepping:
            self._close_cancelled()
            while self._arrivals:
                live = self._arrivals.popleft()
                live.resume(lambda process=live.process: next(process))  # type: ignore[misc]
                self._live.append(live)
            self._drop_finished()
            if self._live:
                self._num_forwards += 1
                self._serve(self._choose())
                self._drop_finished()
            return bool(self._live or self._arrivals)

    def drain(self) -> None:
        """Step until every process is done."""
        while self.step():
            pass

    def _choose(self) -> list[_Share]:
        """The processes of the next forward, each with its number of rows; it is their turn."""
        forward = self._num_forwards
        shares = choose(self._live, self._turns, forward, self._max_rows, self._shared_rows)
        for live, _ in shares:
            live.turn = self._turns[live.owner] = forward
        return shares

    def _serve(self, shares: list[_Share]) -> None:
        """Answer the rows; if that fails, each process alone, to find the one to blame."""
        try:
            answers = self._forward(shares)
        except Exception as error:
            failure = error
        else:
            for (live, _), answer in zip(shares, answers, strict=True):
                live.receive(answer)
            return
        # the frames hold the activations: let go of them, memory may be what ran out
        traceback.clear_frames(failure.__traceback__)
        if len(shares) == 1:
            live = shares[0][0]
            live.resume(lambda: live.process.throw(failure))
        else:
            for share in shares:
                self._serve([share])

    def _forward(self, shares: list[_Share]) -> list[Tensor]:
        leader, counts = shares[0][0], [count for _, count in shares]
        if leader.is_whole():
            with torch.enable_grad():
                return [self._answer(leader, leader.call.rows)]
        parts = [live.next_rows(count) for live, count in shares]
        num_rows = sum(counts)
        bucket = self._bucket(num_rows, any(live.exact for live, _ in shares))
        parts += [tuple(row[-1:] for row in parts[-1])] * (bucket - num_rows)
        with torch.no_grad():
            rows = tuple(torch.cat(column) for column in zip(*parts, strict=True))
            return list(self._answer(leader, rows)[:num_rows].split(counts))

    def _bucket(self, num_rows: int, exact: bool) -> int:
        """Rows of a forward with its padding."""
        if exact:
            num_rows = max(num_rows, self._exact_rows)
        if not (self._pad_rows or exact):
            return num_rows
        return min(1 << (num_rows - 1).bit_length(), self._max_rows)

    def _answer(self, leader: _Live, rows: tuple[Tensor, ...]) -> Tensor:
        name, components = leader.call.component, leader.components
        if name not in components:
            known = ", ".join(sorted(components))
            raise InvalidInput(f"component is {name!r}, but the engine has only: {known}")
        started = time.perf_counter()
        answer = components[name](*rows)
        self._on_forward(name, len(rows[0]), time.perf_counter() - started)
        if answer.ndim == 0 or len(answer) != len(rows[0]):
            raise MedphantomError(
                f"component {name!r} was given {len(rows[0])} rows and answered with the shape "
                f"{tuple(answer.shape)}; it must answer one row for each row"
            )
        return answer

    def _close_cancelled(self) -> None:
        for live in [*self._live, *self._arrivals]:
            if live.ticket.cancelled:
                live.close()
        self._drop_finished()

    def _close_cancelled_unless_stepping(self) -> None:
        # a step under way sees the mark itself, before it resumes the process
        if self._stepping.acquire(blocking=False):
            try:
                self._close_cancelled()
            finally:
                self._stepping.release()

    def _drop_finished(self) -> None:
        self._live = [live for live in self._live if not live.ticket.done()]
        if not self._live:
            self._turns.clear()  # owners come and go


def run(process: Process[T], components: Components, max_rows: int = 16) -> T:
    """Run one process alone, at most `max_rows` rows a forward, and return its result."""
    engine = Engine(components, max_rows, pad_rows=False)
    ticket = engine.submit(process)
    try:
        engine.drain()
    finally:
        process.close()  # on a keyboard interrupt; otherwise it has ended
    return ticket.result()
