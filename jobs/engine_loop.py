"""An engine whose steps run in a thread of their own, with futures outside.

A denoising loop that ran on an event loop would hold it for seconds: nothing could join, be
cancelled or be asked for its health meanwhile.
"""

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any

from gen.engine import LIVE, Engine, Ticket
from gen.errors import MedphantomError, ProcessCancelled
from gen.types import Components, Process, T


class EngineLoop:
    """Run an engine until `close`. Any thread may submit; cancelling a future stops its process.

    Args:
        engine: stepped by nobody else.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._running: list[tuple[Ticket[Any], Future[Any], Callable[[float], None]]] = []
        self._lock = threading.Lock()  # of _running and _closing
        self._wake = threading.Event()
        self._closing = False
        self._step_began: float | None = None  # None while the thread has nothing to do
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        process: Process[T],
        priority: int = LIVE,
        *,
        owner: Hashable = None,
        exact: bool = False,
        components: Components | None = None,
        waited: Callable[[float], None] = lambda _: None,
    ) -> "Future[T]":
        """Let a process join at the next step (see `Engine.submit`).

        `waited` is told, in the end, the seconds until its first call was answered.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closing:
                process.close()
                raise MedphantomError("the engine is closing; send the work to another replica")
            ticket = self._engine.submit(
                process, priority, owner=owner, exact=exact, components=components
            )
            self._running.append((ticket, future, waited))
        future.add_done_callback(lambda done: ticket.cancel() if done.cancelled() else None)
        self._wake.set()
        return future

    @property
    def num_live(self) -> int:
        """Processes that are not done."""
        return len(self._running)  # the engine does not count one that is just starting

    def seconds_stalled(self) -> float:
        """How long the step under way has taken; without end if the thread has died."""
        if not self._thread.is_alive():
            return float("inf")
        began = self._step_began
        return 0.0 if began is None else time.monotonic() - began

    def close(self, drain_s: float = 0.0) -> None:
        """Take nothing more; let what runs finish for so long, then cancel it."""
        with self._lock:
            self._closing = True
        deadline = time.monotonic() + drain_s
        while self._running and time.monotonic() < deadline:
            time.sleep(0.02)
        with self._lock:
            running = list(self._running)
        for ticket, *_ in running:
            ticket.cancel()
        self._wake.set()
        self._thread.join(timeout=60)  # a forward cannot be cut off

    def _run(self) -> None:
        while True:
            self._step_began = time.monotonic()
            self._wake.clear()
            more = self._engine.step()
            self._settle()
            if more:
                continue
            if not self._closing:
                self._step_began = None
                self._wake.wait()
            elif not self._running:  # or somebody came in just before the door was shut
                return

    def _settle(self) -> None:
        """Give the futures of finished processes their results."""
        with self._lock:
            done = [each for each in self._running if each[0].done()]
            if not done:
                return
            self._running = [each for each in self._running if not each[0].done()]
        for ticket, future, waited in done:
            if ticket.waited_s is not None:
                waited(ticket.waited_s)
            try:
                try:
                    result = ticket.result()
                except ProcessCancelled:
                    future.cancel()
                except Exception as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
            except (InvalidStateError, CancelledError):
                pass  # cancelled by its owner at this moment
