"""Calls that may hang on another machine, in threads of their own."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from gen.errors import Busy

BUSY_S = 5.0
T = TypeVar("T")


class BoundedThreads:
    """So many calls at once; more are turned away.

    Calls that hang hold these threads, never those in which the database is asked.

    Args:
        num_threads: calls under way at once.
        name: of what is called, for threads and metrics.
        full: what callers are told who are turned away.
    """

    def __init__(self, num_threads: int, name: str, full: str) -> None:
        self._num_threads = num_threads
        self._name, self._full = name, full
        self._threads = ThreadPoolExecutor(num_threads, name)
        self._calling: set[Future[Any]] = set()

    async def run(self, call: Callable[..., T], *args: Any) -> T:
        """What the call returns. Raises Busy if too many are under way."""
        if len(self._calling) >= self._num_threads:
            raise Busy(self._full, BUSY_S, self._name)
        future = self._threads.submit(call, *args)
        self._calling.add(future)
        future.add_done_callback(self._calling.discard)
        return await asyncio.wrap_future(future)
