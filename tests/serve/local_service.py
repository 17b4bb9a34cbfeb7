"""The whole service in this process: a tiny model, a real database, a real HTTP server."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import uvicorn

from jobs.executor import Executor
from jobs.keys import KeyStore, Scope
from jobs.model_pool import ModelPool
from jobs.row_budget import RowBudget
from jobs.work import News, Work
from jobs.worker import Worker
from serve.api import create_api
from serve.backend import LocalBackend
from serve.data_sets import DataSets, with_data_sets
from serve.service import Service
from serve.settings import AppArgs
from serve.studies import Studies, with_studies
from serve.taught_gates import Taught, Teacher, with_teacher
from serve.uploads import with_uploads


@dataclass
class Running:
    """A service that answers at `url`."""

    url: str
    service: Service
    executor: Executor
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def running(model: str, folder: Any, works: bool = True, **fields: Any) -> Iterator[Running]:
    """Start a service over a model folder; with `require_keys`, with a key for everything.

    Unless it `works`, jobs are accepted but stay queued.
    """
    defaults = {
        "models": (model,),
        "store": f"sqlite:///{folder}/jobs.db",
        "results": str(folder / "results"),
        "copies": folder / "copies",
        "require_keys": False,
        "lease_s": 3,
    }
    args = AppArgs.model_validate({**defaults, **fields})
    pool = ModelPool(args.models, torch.device("cpu"), torch.float32)
    executor = Executor(pool, RowBudget(8, 4, 8))
    service = Service(args, LocalBackend(executor))
    studies = Studies(args.pacs, args.job_slots)
    data_sets = DataSets(args.stores, args.copies, args.job_slots)
    taught = Taught(service.sink, args.copies / "taught")

    async def made(work: Work) -> AsyncIterator[News]:
        async for each in executor.run(await taught.given(work)):
            yield each

    read = with_data_sets(data_sets, made)
    teacher = Teacher(data_sets, service.sink, args.copies / "gates")
    execute = with_uploads(service.sink, with_studies(studies, with_teacher(teacher, read)))
    worker = Worker(service.store, service.sink, execute, "worker", args.job_slots, args.lease_s)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    config = uvicorn.Config(create_api(service), port=port, log_level="warning")
    server = uvicorn.Server(config)

    async def main() -> None:
        working = asyncio.create_task(worker.run() if works else asyncio.sleep(0))
        await server.serve()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        while not server.started:
            threading.Event().wait(0.02)
        headers = {}
        if args.require_keys:
            _, secret = KeyStore(args.store).create("test", list(Scope), None)
            headers = {"Authorization": f"Bearer {secret}"}
        yield Running(f"http://127.0.0.1:{port}", service, executor, headers)
    finally:
        server.should_exit = True
        thread.join()
        executor.close()
        service.store.close()
