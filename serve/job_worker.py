"""The deployment that works off the job store, below live requests."""

import asyncio
import logging
import uuid

from ray.serve.handle import DeploymentHandle

from jobs.sink import Sink
from jobs.store import JobStore
from jobs.worker import Worker
from serve.data_sets import DataSets, with_data_sets
from serve.logs import join_serve_logs
from serve.ray_backend import RayBackend
from serve.settings import AppArgs
from serve.studies import Studies, with_studies
from serve.taught_gates import Teacher, with_teacher
from serve.uploads import sweep, with_uploads

log = logging.getLogger("medphantom.worker")


class JobWorker:
    """Leases items and has the samplers make them."""

    async def __init__(  # type: ignore[misc] # Serve awaits it
        self, args: AppArgs, sampler: DeploymentHandle
    ) -> None:
        join_serve_logs()
        sink = Sink(args.results)
        studies = Studies(args.pacs, args.job_slots)
        data_sets = DataSets(args.stores, args.copies, args.job_slots)
        teacher = Teacher(data_sets, sink, args.copies / "gates")
        execute = with_teacher(teacher, with_data_sets(data_sets, RayBackend(sampler).run_once))
        worker = Worker(
            JobStore(args.store),
            sink,
            with_uploads(sink, with_studies(studies, execute)),
            name=f"worker-{uuid.uuid4().hex[:12]}",
            slots=args.job_slots,
            lease_s=args.lease_s,
        )
        self._task = asyncio.create_task(worker.run())
        self._sweeping = asyncio.create_task(sweep(sink, args.result_ttl_hours * 3600))

    def check_health(self) -> None:
        """Raise if the work has ended, which it never does by itself."""
        if self._task.done():
            raise RuntimeError("the worker has stopped")

    async def __del__(self) -> None:
        """Give back what is under way."""
        for task in (self._task, self._sweeping):
            task.cancel()
        await asyncio.gather(self._task, self._sweeping, return_exceptions=True)
