"""How many live requests a caller may have here at once, and how many may wait."""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gen.errors import Busy

LONGEST_RETRY_S = 60
FORGET = 0.8  # of the old average when a new duration comes in


class Admission:
    """Each owner has places of its own, so that one who floods waits for itself alone.

    Args:
        places: requests of one owner that are worked on at once.
        queue: further ones that may wait.
    """

    def __init__(self, places: int, queue: int) -> None:
        self._places = places
        self._queue = queue
        self._semaphores: dict[str, asyncio.Semaphore] = {}
        self._present: defaultdict[str, int] = defaultdict(int)
        self._seconds = 1.0  # what a request takes, on average

    @asynccontextmanager
    async def place(self, owner: str) -> AsyncIterator[None]:
        """Hold a place of the owner's; wait for it.

        Raises:
            Busy: too many wait already.
        """
        if self._present[owner] >= self._places + self._queue:
            raise Busy(
                f"{self._present[owner]} requests of yours are under way or wait, which is the "
                "most; send fewer at once, or make a job of them with Prefer: respond-async",
                retry_after_s=self.retry_after_s(owner),
                reason="key",
            )
        self._present[owner] += 1
        semaphore = self._semaphores.setdefault(owner, asyncio.Semaphore(self._places))
        try:
            async with semaphore:
                started = time.monotonic()
                yield
                taken = time.monotonic() - started
                self._seconds = FORGET * self._seconds + (1 - FORGET) * taken
        finally:
            self._present[owner] -= 1
            if not self._present[owner]:
                del self._present[owner], self._semaphores[owner]

    def retry_after_s(self, owner: str) -> float:
        """When a place of the owner's queue should be free."""
        rounds = max(1.0, (self._present[owner] - self._places + 1) / self._places)
        return min(LONGEST_RETRY_S, math.ceil(rounds * self._seconds))
