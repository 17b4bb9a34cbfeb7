"""A Ray cluster of this machine alone."""

import contextlib
import logging
import os
import random
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import ray
from ray._private.node import Node

TRIES = 3  # a busy machine may not start within Ray's half minute


def start_ray(
    dashboard: bool = False, num_cpus: int | None = None, object_store_mb: int | None = None
) -> None:
    """Start one, whatever other clusters there are. It needs a token, which Ray makes by itself.

    Args:
        dashboard: with Ray's dashboard, on 127.0.0.1:8265 and behind that token.
        num_cpus: on paper; None is what there is.
        object_store_mb: memory for what processes pass on; None is Ray's own choice.
    """
    # Ray's default of 15 lets whatever else runs preempt one of a forward's threads, and the others
    # wait for it
    os.environ.setdefault("RAY_worker_niceness", "0")
    # it says only that there is a token
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    for tries_left in reversed(range(TRIES)):
        try:
            _init(
                address="local",
                num_cpus=num_cpus,
                object_store_memory=None if object_store_mb is None else object_store_mb * 2**20,
                include_dashboard=dashboard,
                dashboard_host="127.0.0.1",
            )
        except Exception as error:  # Ray has no class of its own for it
            _end_half_started(error)
            if "timed out during startup" not in str(error) or not tries_left:
                raise
            time.sleep(1)
        else:
            return


def join_ray(address: str) -> None:
    """Connect to a cluster. Raises whatever Ray raises."""
    _init(address=address)


def _init(**options: Any) -> None:
    """Start or join a cluster. Who sets RAY_BACKEND_LOG_LEVEL hears more from Ray."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # what dies is told in a line of ours; Ray's C++ would fill stderr with what it meets meanwhile
    quiet = os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal") == "fatal"
    with _only_python_on_stderr() if quiet else contextlib.nullcontext():
        ray.init(log_to_driver=False, logging_level=logging.WARNING, **options)


@contextlib.contextmanager
def _only_python_on_stderr() -> Iterator[None]:
    """Ray's C++ says there at its start how much it will say, however little that is."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    python = sys.stderr
    if python is sys.__stderr__:  # and not what a test put there
        # never closed: another thread may be drawing a bar
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, closefd=False)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
        sys.stderr = python


def _end_half_started(error: Exception) -> None:
    """Ray forgets the processes of a start that failed; they would slow the next one."""
    trace = error.__traceback__
    while trace is not None:
        node = trace.tb_frame.f_locals.get("self")
        if isinstance(node, Node):
            node.kill_all_processes(check_alive=False)
        trace = trace.tb_next


def free_port() -> int:
    """A port that nobody listens at, nor will soon: not one of those that Ray or Linux hand out."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def is_alive() -> bool:
    """Whether the cluster still answers."""
    try:
        return bool(ray.nodes())
    except Exception:  # whatever a dead cluster raises
        return False
