"""Takes items from the job store, has them made, keeps the results: at least once each.

The store is the truth. A worker that dies loses its leases, another takes the items over, and what
both made is the same file; a worker whose lease was lost cannot publish.
"""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from gen.errors import Busy, InvalidInput, LeaseLost, MedphantomError, ModelRefused
from gen.sharing import BATCH
from jobs.sink import Sink
from jobs.store import JobStore, Lease
from jobs.tasks.task import Made
from jobs.work import Done, Failed, News, Preview, Step, Waits, Work

Execute = Callable[[Work], AsyncIterator[News | Waits]]
R = TypeVar("R")

POLL_S = 0.5  # how long a new job waits at most
STEP_S = 0.5  # a step is written down at most so often an item
PURGE_S = 60.0
AFTER_LOSS_S = 1.0
WHEN_FULL_S = 10.0  # a full disk is looked at again after so long

log = logging.getLogger("medphantom.worker")


class Worker:
    """Works until it is stopped.

    Args:
        store: of the jobs.
        sink: of the results.
        execute: makes the items; its errors, other than ours, count as the death of who made them.
        name: of this worker, for the store.
        slots: items under way at once.
        lease_s: how long after the worker's death its items are given to others.
    """

    def __init__(
        self, store: JobStore, sink: Sink, execute: Execute, name: str, slots: int, lease_s: float
    ) -> None:
        self._store = store
        self._sink = sink
        self._execute = execute
        self._name = name
        self._slots = slots
        self._lease_s = lease_s
        self._running: dict[asyncio.Task[None], Lease] = {}

    async def run(self) -> None:
        """Work until cancelled; then what is under way is given back."""
        beats = [asyncio.create_task(self._repeat(*each)) for each in self._duties()]
        try:
            await asyncio.wait(beats, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in [*beats, *self._running]:
                task.cancel()
            await asyncio.gather(*beats, *self._running, return_exceptions=True)

    def _duties(self) -> list[tuple[Callable[[], Any], float]]:
        return [
            (self._take, POLL_S),
            (self._beat, self._lease_s / 3),
            (self._purge, PURGE_S),
        ]

    async def _repeat(self, duty: Callable[[], Any], seconds: float) -> None:
        """Do a duty again and again, whatever becomes of it: the database may be away."""
        while True:
            try:
                await duty()
            except Exception as error:
                log.warning("%s failed with %s", duty.__name__, type(error).__name__)
            await asyncio.sleep(seconds)

    async def _take(self) -> None:
        free = self._slots - len(self._running)
        if free <= 0:
            return
        taking = asyncio.ensure_future(
            in_thread(self._store.lease, self._name, free, self._lease_s)
        )
        try:
            leases = await asyncio.shield(taking)
        except asyncio.CancelledError:
            for lease in await taking:  # the thread goes on, and nobody would work on these
                await self._settle(self._store.release, lease, 0.0, lost=False)
            raise
        for lease in leases:
            task = asyncio.create_task(self._do(lease))
            self._running[task] = lease
            task.add_done_callback(self._running.pop)

    async def _beat(self) -> None:
        leases = list(self._running.values())
        if not leases:
            return
        lost = await in_thread(self._store.heartbeat, leases, self._lease_s)
        gone = {(lease.job_id, lease.index, lease.token) for lease in lost}
        for task, lease in list(self._running.items()):
            if (lease.job_id, lease.index, lease.token) in gone:
                task.cancel()

    async def _purge(self) -> None:
        await in_thread(self._store.purge, lambda file: self._sink.delete([file]))

    async def _do(self, lease: Lease) -> None:
        """Make one item, and settle its lease whatever happens."""
        try:
            await self._make(lease)
        except LeaseLost:
            return
        except asyncio.CancelledError:
            await self._settle(self._store.release, lease, 0.0, lost=False)
            raise
        except (InvalidInput, ModelRefused) as error:
            await self._settle(self._store.fail, lease, str(error), retry=False)
        except Busy as error:
            await self._settle(self._store.release, lease, error.retry_after_s, lost=False)
        except Exception as error:
            log.warning("an item was lost with %s", type(error).__name__)
            await self._settle(self._store.release, lease, AFTER_LOSS_S, lost=True)

    async def _make(self, lease: Lease) -> None:
        work = Work(
            task=lease.task,
            request_id=lease.job_id,
            owner=lease.owner,
            spec=lease.job_spec,
            items={lease.index: lease.item_spec},
            priority=BATCH,
            exact=True,
            step_s=STEP_S,
        )
        ended = False
        async with aclosing(self._execute(work)) as news:  # type: ignore[type-var]
            async for each in news:
                await self._note(lease, each)
                ended = ended or isinstance(each, Done | Failed | Waits)
        if not ended:
            raise MedphantomError("the news ended before the item did")

    async def _note(self, lease: Lease, news: News | Waits) -> None:
        match news:
            case Step():
                await in_thread(self._store.progress, lease, news.step, news.num_steps)
            case Preview():
                picture = "data:image/png;base64," + base64.b64encode(news.png).decode()
                progress = self._store.progress
                await in_thread(progress, lease, news.step, news.num_steps, picture)
            case Failed():
                fail = self._store.fail
                await in_thread(fail, lease, news.reason, news.retry, news.after_s, news.record)
            case Waits():
                await in_thread(self._store.postpone, lease, news.after_s, news.reason)
            case Done():
                publishing = asyncio.ensure_future(self._publish(lease, news.made))
                try:
                    await asyncio.shield(publishing)
                except asyncio.CancelledError:
                    await asyncio.wait([publishing])  # or a file could stay that nobody knows of
                    raise

    async def _publish(self, lease: Lease, made: Made) -> None:
        try:
            kept = await in_thread(
                self._sink.put, lease.job_id, lease.index, made.data, made.media_type
            )
        except OSError as error:
            log.warning("the store of results failed with %s", type(error).__name__)
            raise Busy("the store of results is full or away", WHEN_FULL_S, "results") from error
        try:
            await in_thread(
                self._store.finish, lease, made.record, kept.file, kept.sha256, kept.size
            )
        except LeaseLost:
            await self._forget(lease, kept.file)
            raise

    async def _forget(self, lease: Lease, file: str) -> None:
        """Delete what nobody wants, unless whoever took over made the same file."""
        try:
            item = await in_thread(self._store.item, lease.job_id, lease.index)
        except MedphantomError:
            item = None
        if item is None or (item.state.is_final and item.file != file):
            await in_thread(self._sink.delete, [file])

    async def _settle(
        self, settle: Callable[..., Any], lease: Lease, *args: Any, **kw: Any
    ) -> None:
        """Tell the store; if it cannot be told, the lease runs out by itself."""
        try:
            await asyncio.shield(in_thread(settle, lease, *args, **kw))
        except LeaseLost:
            return
        except Exception as error:
            log.warning("a lease could not be settled: %s", type(error).__name__)


async def in_thread(call: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    """Run a call that waits for disk or database without holding the event loop."""
    return await asyncio.to_thread(call, *args, **kwargs)
