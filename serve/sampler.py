"""The deployment that holds a GPU: one executor, and nothing else."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import torch
from prometheus_client import Metric

from gen.errors import MedphantomError
from gen.sharing import LIVE
from jobs.executor import Executor
from jobs.model_pool import ModelPool
from jobs.row_budget import RowBudget, measure_rows
from jobs.store import JobStore
from jobs.tasks import TASKS
from jobs.work import Done, Failed, News, Work
from serve.backend import collect
from serve.logs import join_serve_logs
from serve.metrics import SamplerMetrics, snapshot
from serve.settings import AppArgs

log = logging.getLogger("medphantom.sampler")

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
WARM_UP = {"prompt": "normal chest x-ray", "num_inference_steps": 2}


class Refused:
    """An error of ours on its way to the ingress: Ray would wrap, and log, a raised one."""

    def __init__(self, error: MedphantomError) -> None:
        self.error = error


class Sampler:
    """Answers the calls of ingresses and job workers; all of them share the engine's forwards."""

    def __init__(self, args: AppArgs) -> None:
        join_serve_logs()
        self._args = args
        torch.set_num_threads(args.threads or max(1, int(args.cpus)))
        self._metrics = SamplerMetrics()
        self._pool = make_pool(args)
        rows = find_rows(args, self._pool)
        log.info("a forward has up to %d rows", rows.max_rows)
        self._executor = Executor(self._pool, rows, self._saw_forward, self._saw_wait)

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
            async for each in self._executor.run(work):
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
        for model, size in self._pool.memory().items():
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


def make_pool(args: AppArgs) -> ModelPool:
    """The pool of a sampler, on its device."""
    cuda = torch.cuda.is_available()
    auto = torch.float16 if cuda else torch.float32
    dtype = auto if args.precision == "auto" else PRECISIONS[args.precision]
    device = torch.device("cuda" if cuda else "cpu")
    limit = args.model_memory_mb and args.model_memory_mb * 2**20
    return ModelPool(args.models, device, dtype, limit)


def find_rows(args: AppArgs, pool: ModelPool) -> RowBudget:
    """The row budget of the first model on this device, measured once for a store.

    It is kept with the jobs because their bits depend on it: a restart must not change them.
    Measuring also warms the model up.
    """
    task, model = next(iter(TASKS.values())), args.models[0]
    loaded = pool.acquire(task, model)
    try:
        spec = task.check({**WARM_UP, "model": model})
        process = task.process(loaded.pipeline, spec, task.items(spec, "")[0], lambda *_: None)
        store = JobStore(args.store)
        try:
            name = _device_name(args, pool, loaded.pipeline.weight_sha256)
            kept = store.recall(name)
            if kept is not None:
                return RowBudget(**kept)
            rows = measure_rows(process, loaded.networks, pool.device, args.max_rows)
            return RowBudget(**store.remember(name, rows.to_dict()))
        finally:
            store.close()
    finally:
        pool.release(loaded)


def _device_name(args: AppArgs, pool: ModelPool, weight_sha256: str) -> str:
    device = torch.cuda.get_device_name() if pool.device.type == "cuda" else "cpu"
    parts = (device, torch.get_num_threads(), pool.dtype, args.max_rows, weight_sha256[:16])
    return "rows/" + "/".join(map(str, parts))
