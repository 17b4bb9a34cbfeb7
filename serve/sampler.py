"""The deployment that holds a GPU: one executor, and nothing else."""

import logging
from collections.abc import AsyncIterator
from typing import Any

from prometheus_client import Metric

from gen.errors import MedphantomError
from gen.sharing import LIVE
from jobs.sink import Sink
from jobs.work import Done, Failed, News, Work
from serve.backend import Refused, collect
from serve.logs import join_serve_logs
from serve.metrics import SamplerMetrics, snapshot
from serve.settings import AppArgs
from serve.taught_gates import Taught

log = logging.getLogger("medphantom.sampler")


class Sampler:
    """Answers the calls of ingresses and job workers; all of them share the engine's forwards."""

    def __init__(self, args: AppArgs) -> None:
        join_serve_logs()
        self._args = args
        from serve.warm_up import make_executor  # torch, which only this process needs

        self._metrics = SamplerMetrics()
        self._taught = Taught(Sink(args.results), args.copies / "taught")
        self._executor = make_executor(args, self._saw_forward, self._saw_wait)
        log.info("a forward has up to %d rows", self._executor.rows.max_rows)

    async def make(self, work: Work) -> list[Done | Failed] | Refused:
        """All items of a request; a cancelled call stops them at the next step."""
        try:
            ends = await collect(self._executor.run(work))
        except MedphantomError as error:
            return Refused(error)
        self._count(work, ends)
        return ends

    async def run(self, work: Work) -> AsyncIterator[News | Refused]:
        """News of a request."""
        try:
            async for each in self._executor.run(await self._taught.given(work)):
                self._count(work, [each])
                yield each
        except MedphantomError as error:
            yield Refused(error)

    async def cancel(self, request_id: str) -> int:
        """Stop what is under way for a request or job; how many items that were."""
        return self._executor.cancel(request_id)

    async def metrics(self) -> list[Metric]:
        """Figures of this process."""
        self._metrics.live_processes.set(self._executor.num_live)
        for model, size in self._executor.pool.memory().items():
            self._metrics.model_memory.labels(model).set(size)
        return snapshot(self._metrics.registry)

    def check_health(self) -> None:
        """Raise if the engine's thread hangs or has died; Serve then replaces this replica."""
        stalled = self._executor.seconds_stalled()
        if stalled > self._args.stall_s:
            raise RuntimeError(f"no forward has ended for {stalled:.0f} s")

    def _count(self, work: Work, news: list[Any]) -> None:
        self._metrics.images.labels(work.task).inc(sum(isinstance(each, Done) for each in news))

    def _saw_forward(self, component: str, rows: int, seconds: float) -> None:
        self._metrics.forward_rows.labels(component).observe(rows)
        self._metrics.forward_seconds.labels(component).observe(seconds)

    def _saw_wait(self, priority: int, seconds: float) -> None:
        kind = "live" if priority == LIVE else "job"
        self._metrics.queue_wait.labels(kind).observe(seconds)
