"""An executor as a sampler holds it: device, precision, threads, row budget, a warm first model."""

from collections.abc import Callable
from dataclasses import replace

import torch

from gen.allocator import keep_freed_memory
from gen.engine import OnForward
from gen.store.catalogue import resolve
from jobs.executor import Executor
from jobs.model_pool import ModelPool
from jobs.row_budget import RowBudget, measure_rows
from jobs.store import JobStore
from jobs.tasks import TASKS
from jobs.tasks.served import fits
from jobs.tasks.task import Task
from serve.settings import AppArgs

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def make_executor(
    args: AppArgs,
    on_forward: OnForward = lambda *_: None,
    on_wait: Callable[[int, float], None] = lambda *_: None,
) -> Executor:
    """An executor whose first model is loaded and has run."""
    pool = make_pool(args)
    return Executor(pool, find_rows(args, pool), on_forward, on_wait)


def make_pool(args: AppArgs) -> ModelPool:
    """The pool of a sampler, on its device; the process is set up for its forwards."""
    torch.set_num_threads(args.threads or max(1, int(args.cpus)))
    keep_freed_memory()
    cuda = torch.cuda.is_available()
    auto = torch.float16 if cuda else torch.float32
    dtype = auto if args.precision == "auto" else PRECISIONS[args.precision]
    device = torch.device("cuda" if cuda else "cpu")
    limit = args.model_memory_mb and args.model_memory_mb * 2**20
    return ModelPool(args.models, device, dtype, limit)


def find_rows(args: AppArgs, pool: ModelPool) -> RowBudget:
    """The row budget of this device, measured once for a store.

    It is the first model's, except that exact work needs the rows that any model's bits need. It
    is kept with the jobs because their bits depend on it: a restart must not change them. Measuring
    also warms the first model up.
    """
    store = JobStore(args.store)
    try:
        rows = _rows_of(args.models[0], pool, args.max_rows, store)
        exact = [
            _rows_of(model, pool, rows.max_rows, store).exact_rows for model in args.models[1:]
        ]
    finally:
        store.close()
    pool.release(pool.acquire(_task_of(args.models[0]), args.models[0]))  # others may evict it
    return replace(rows, exact_rows=max([rows.exact_rows, *exact]))


def _rows_of(model: str, pool: ModelPool, max_rows: int | None, store: JobStore) -> RowBudget:
    name = _device_name(pool, max_rows, resolve(model).weight_sha256)
    kept = store.recall(name)
    if kept is not None:
        return RowBudget(**kept)
    task = _task_of(model)
    loaded = pool.acquire(task, model)
    try:
        spec = task.check({**task.warm_up(), "model": model})
        process = task.process(loaded.pipeline, spec, task.items(spec, "")[0], lambda *_: None)
        rows = measure_rows(process, loaded.networks, pool.device, max_rows)
    finally:
        pool.release(loaded)
    return RowBudget(**store.remember(name, rows.to_dict()))


def _task_of(model: str) -> Task:
    """The first task that a model fits."""
    return next((each for each in TASKS.values() if fits(each, model)), TASKS["text-to-cxr"])


def _device_name(pool: ModelPool, max_rows: int | None, weight_sha256: str) -> str:
    device = torch.cuda.get_device_name() if pool.device.type == "cuda" else "cpu"
    parts = (device, torch.get_num_threads(), pool.dtype, max_rows, weight_sha256[:16])
    return "rows/" + "/".join(map(str, parts))
