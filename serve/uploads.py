"""The pictures that jobs came with: given to whoever makes the items, forgotten with the jobs."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from gen.errors import NotFound
from jobs.sink import Sink
from jobs.tasks import TASKS
from jobs.work import News, Waits, Work
from jobs.worker import Execute, in_thread

SWEEP_S = 600.0

log = logging.getLogger("medphantom.worker")


def with_uploads(sink: Sink, execute: Execute) -> Execute:
    """The same maker of items, which is given work with files where the store has digests."""

    async def run(work: Work) -> AsyncIterator[News | Waits]:
        if work.task not in TASKS:
            raise NotFound(f"task {work.task!r} is unknown; it may be of another version")
        spec = await in_thread(TASKS[work.task].attach, work.spec, sink.get_upload)
        async with aclosing(execute(replace(work, spec=spec))) as news:  # type: ignore[type-var]
            async for each in news:
                yield each

    return run


async def sweep(sink: Sink, ttl_s: float) -> None:
    """Forget uploads again and again, once every job that may need them is forgotten."""
    while True:
        try:
            await in_thread(sink.sweep_uploads, ttl_s + SWEEP_S, time.time())
        except OSError as error:
            log.warning("uploads could not be swept: %s", type(error).__name__)
        await asyncio.sleep(SWEEP_S)
