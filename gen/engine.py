"""Answer the network calls of many sampling processes, sharing each forward between them.

`run` drives one process. `Engine` drives many, a forward at a time: the process whose turn it is
leads, and every call that fits beside its own (same component, trailing shapes, dtypes, devices)
rides along, up to a budget of rows. A newcomer joins at the next forward. Nobody starves:

- processes of one priority take turns, longest waiting first, and share the rows evenly, so a call
  of hundreds of rows is spread over many forwards and others need not wait for its end;
- a lower priority number goes first and the others get the rows it leaves, except that one forward
  in `FAIR_TURN` ignores priority.
"""

import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Generic, cast

import torch
from torch import Tensor

from gen.errors import InvalidInput, MedphantomError, ProcessCancelled
from gen.types import Components, ModelCall, Process, T

LIVE, BATCH = 0, 1  # priorities: somebody waits; work for the rows that live requests leave
FAIR_TURN = 8  # costs live requests at most an eighth of the forwards


class Ticket(Generic[T]):
    """A submitted process: ask it how far it is, for its result, or to stop. Any thread may."""

    def __init__(self, priority: int, on_cancel: Callable[[], None]) -> None:
        self.priority = priority
        self.steps_done = 0  # network calls answered so far
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

    def __init__(self, ticket: Ticket[Any], process: Process[Any], turn: int) -> None:
        self.ticket = ticket
        self.process = process
        self.turn = turn  # number of the forward that served it last
        self.answers: list[Tensor] = []
        self.num_waiting = 0  # rows of the call not answered yet

    def group(self) -> tuple[object, ...]:
        """Calls of one group may share a forward; one that needs autograd shares with nobody."""
        alone = id(self) if self.call.needs_grad else None
        return (
            self.call.component,
            alone,
            *((r.shape[1:], r.dtype, r.device) for r in self.call.rows),
        )

    def next_rows(self, num_rows: int) -> tuple[Tensor, ...]:
        start = self.call.num_rows - self.num_waiting
        return tuple(row[start : start + num_rows] for row in self.call.rows)

    def receive(self, answer: Tensor) -> None:
        """Take the answer to the next rows; when it is the last, resume the process."""
        self.answers.append(answer)
        self.num_waiting -= len(answer)
        if self.num_waiting == 0:
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
            the call needs it.
        max_rows: most rows of one forward; only a call that needs autograd is never split.
        pad_rows: fill each forward up to 1, 2, 4, 8, ... rows by repeating one, so that compiled
            networks see few shapes; the padding is dropped from the answer.
    """

    def __init__(self, components: Components, max_rows: int = 16, pad_rows: bool = True) -> None:
        if max_rows < 1:
            raise InvalidInput(f"max_rows is {max_rows}, but a forward needs a row; try 16")
        self._components = components
        self._max_rows = max_rows
        self._pad_rows = pad_rows
        self._arrivals: deque[_Live] = deque()  # not started yet; any thread appends
        self._live: list[_Live] = []
        self._num_forwards = 0
        self._stepping = threading.Lock()  # a running process cannot be closed

    def submit(self, process: Process[T], priority: int = LIVE) -> Ticket[T]:
        """Let the process join at the next step; the lower the priority number, the earlier."""
        ticket: Ticket[T] = Ticket(priority, self._close_cancelled_unless_stepping)
        self._arrivals.append(_Live(ticket, process, self._num_forwards))
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
                shares = self._choose()
                for live, _ in shares:
                    live.turn = self._num_forwards
                self._serve(shares)
                self._drop_finished()
            return bool(self._live or self._arrivals)

    def drain(self) -> None:
        """Step until every process is done."""
        while self.step():
            pass

    def _choose(self) -> list[_Share]:
        """The processes of the next forward, each with its number of rows."""
        all_equal = self._num_forwards % FAIR_TURN == 0

        def rank(live: _Live) -> int:
            return 0 if all_equal else live.ticket.priority

        queue = sorted(self._live, key=lambda live: (rank(live), live.turn))
        leader = queue[0]
        if leader.call.needs_grad:
            return [(leader, leader.num_waiting)]
        shares: list[_Share] = []
        budget = self._max_rows
        for _, peers in groupby((x for x in queue if x.group() == leader.group()), key=rank):
            equals = list(peers)
            counts = fair_shares([live.num_waiting for live in equals], budget)
            budget -= sum(counts)
            shares += [(live, count) for live, count in zip(equals, counts, strict=True) if count]
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
        call, counts = shares[0][0].call, [count for _, count in shares]
        if call.needs_grad:
            with torch.enable_grad():
                return [self._answer(call.component, call.rows)]
        parts = [live.next_rows(count) for live, count in shares]
        num_rows = sum(counts)
        if self._pad_rows:
            bucket = min(1 << (num_rows - 1).bit_length(), self._max_rows)
            parts += [tuple(row[-1:] for row in parts[-1])] * (bucket - num_rows)
        with torch.no_grad():
            rows = tuple(torch.cat(column) for column in zip(*parts, strict=True))
            return list(self._answer(call.component, rows)[:num_rows].split(counts))

    def _answer(self, name: str, rows: tuple[Tensor, ...]) -> Tensor:
        if name not in self._components:
            known = ", ".join(sorted(self._components))
            raise InvalidInput(f"component is {name!r}, but the engine has only: {known}")
        answer = self._components[name](*rows)
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


def run(process: Process[T], components: Components, max_rows: int = 16) -> T:
    """Run one process alone, at most `max_rows` rows a forward, and return its result."""
    engine = Engine(components, max_rows, pad_rows=False)
    ticket = engine.submit(process)
    try:
        engine.drain()
    finally:
        process.close()  # on a keyboard interrupt; otherwise it has ended
    return ticket.result()


def fair_shares(wanted: Sequence[int], budget: int) -> list[int]:
    """Split a budget of rows max-min fairly: small wishes are met, large ones share the rest.

    When there are more wishes than rows, the first ones get a row each.
    """
    shares = [0] * len(wanted)
    ascending = sorted(range(min(len(wanted), budget)), key=lambda index: wanted[index])
    for num_served, index in enumerate(ascending):
        shares[index] = min(wanted[index], budget // (len(ascending) - num_served))
        budget -= shares[index]
    return shares
