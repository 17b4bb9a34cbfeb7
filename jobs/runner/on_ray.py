"""Shards made by Ray Data: a data set of their numbers, mapped by actors that each hold a model."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.data import ActorPoolStrategy, DataContext

from gen.errors import InvalidInput, MedphantomError
from jobs.cluster import join_ray, start_ray
from jobs.runner.worker import SHARDS_AT_ONCE, Outcome, ShardWorker
from jobs.vigil import while_alive

OBJECT_STORE_MB = 200  # only numbers of shards and counts lie in it


@dataclass(frozen=True)
class Pool:
    """Workers, and of each, its threads on a CPU and its share of GPUs."""

    workers: int
    threads: int
    gpus: float = 0.0


@contextmanager
def cluster(workers: int | None, threads: int | None, address: str | None) -> Iterator[Pool]:
    """A cluster to work on: the one that is named, the one this process has, or one of its own.

    Args:
        workers, threads: None is what fits, see `jobs.runner.runner.Crew`.
        address: of a cluster; None starts one of this machine.
    """
    if ray.is_initialized():
        yield _pool(workers, threads)
        return
    if address is not None:
        _join(address)
    else:
        paper = workers * threads if workers and threads else os.cpu_count()
        try:
            start_ray(num_cpus=paper, object_store_mb=OBJECT_STORE_MB)
        except Exception as error:  # Ray has no class of its own for it
            raise MedphantomError(
                f"Ray did not start ({type(error).__name__}), as on a machine that is too busy; run"
                " the job again, or with --workers 0 without Ray"
            ) from error
    try:
        yield _pool(workers, threads)
    finally:
        ray.shutdown()


def _pool(workers: int | None, threads: int | None) -> Pool:
    """As many of each as are named, or as fit on the cluster."""
    hosts = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    hosts = [each for each in hosts if each.get("GPU")] or [each for each in hosts if each["CPU"]]
    gpus = sum(each.get("GPU", 0.0) for each in hosts)
    workers = workers or int(gpus) or max(1, len(hosts))
    if threads is None:
        # not what this machine has: a container may have less, and another host, too
        taken = ray.cluster_resources().get("CPU", 0) - ray.available_resources().get("CPU", 0)
        cpus = int(min((each["CPU"] for each in hosts), default=1) - taken)
        beside = -(-workers // max(1, len(hosts)))
        threads = 1 if gpus else max(1, cpus // beside)
    return Pool(workers, threads, min(1.0, gpus / workers))


def _join(address: str) -> None:
    try:
        join_ray(address)
    except Exception as error:  # Ray has no class of its own for it
        raise InvalidInput(
            f"address is {address!r}, but no Ray cluster answers there ({type(error).__name__});"
            " check it, and that RAY_AUTH_TOKEN is the cluster's"
        ) from error


def make_on_ray(out: Path, shards: Sequence[int], pool: Pool) -> Iterator[Outcome]:
    """Make shards; outcomes come as they are done. A worker that dies is started again.

    Raises:
        RayDied: the cluster has died.
    """
    _keep_quiet()
    workers = min(pool.workers, len(shards))
    numbers = [{"shard": number} for number in shards]
    made = ray.data.from_items(numbers, override_num_blocks=len(numbers)).map_batches(
        ShardWorker,
        batch_size=1,
        compute=ActorPoolStrategy(
            size=workers,
            max_concurrent_calls_per_actor=SHARDS_AT_ONCE,
            enable_true_multi_threading=True,  # or the calls would take turns
            # some wait for each worker, but the first to start does not take them all
            max_tasks_in_flight_per_actor=min(2 * SHARDS_AT_ONCE, -(-len(shards) // workers)),
        ),
        fn_constructor_kwargs={"out": str(out.resolve()), "threads": pool.threads},
        num_cpus=pool.threads,
        num_gpus=pool.gpus,
    )
    for row in while_alive(made.iter_rows()):
        yield Outcome(**row)


def _keep_quiet() -> None:
    """Ray Data's own bars and tables would be drawn over ours."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
