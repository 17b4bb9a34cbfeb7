"""Waits for what a Ray cluster makes, and notices when it dies: Ray Data waits on, and in the end
Ray ends the process without a word."""

import queue
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import ray

from gen.errors import MedphantomError

LOOK_S = 1.0
MISSES = 3  # in a row, before a cluster counts as dead
T = TypeVar("T")
Door = tuple[str, int]


class RayDied(MedphantomError):
    """The cluster is gone, or this machine's part of it."""

    def __init__(self) -> None:
        super().__init__("Ray has died; run the job again, it goes on")


def while_alive(rows: Iterable[T]) -> Iterator[T]:
    """What comes of `rows`, which wait for the cluster that this process is connected to.

    Raises:
        RayDied: the cluster did, or what it says is nothing but errors.
    """
    came: queue.SimpleQueue[Any] = queue.SimpleQueue()
    stop, doors = threading.Event(), _doors()
    end, misses = object(), 0

    def pull() -> None:
        try:
            for row in rows:
                came.put(row)
                if stop.is_set():
                    return
            came.put(end)
        except Exception as error:  # of many classes, by what died first
            came.put(RayDied().with_traceback(error.__traceback__))

    threading.Thread(target=pull, name="ray-rows", daemon=True).start()
    try:
        while misses < MISSES:
            try:
                row = came.get(timeout=LOOK_S)
            except queue.Empty:
                misses = 0 if all(map(_opens, doors)) else misses + 1
                continue
            if row is end:
                return
            if isinstance(row, RayDied):
                raise row
            yield row
        raise RayDied()
    finally:
        stop.set()


def _doors() -> list[Door]:
    """Where the head of the cluster and this machine's part of it listen."""
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    doors = [(host.strip("[]"), int(port))]
    for node in ray.nodes():
        if node["NodeID"] == context.get_node_id():
            doors.append((node["NodeManagerAddress"], node["NodeManagerPort"]))
    return doors


def _opens(door: Door) -> bool:
    """Whether somebody listens: the system answers for a process that is busy, none for a dead."""
    try:
        with socket.create_connection(door, timeout=5):
            return True
    except OSError:
        return False
