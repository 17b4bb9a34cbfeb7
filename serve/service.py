"""What the routes share: who works, what is stored, who may come in."""

import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from fastapi import Request

from gen.errors import InvalidInput, MedphantomError
from jobs.job import Job
from jobs.keys import KeyStore, Scope
from jobs.links import link_secret
from jobs.sink import Sink
from jobs.store import JobStore
from jobs.tasks.data_set import DataSetSpec
from jobs.tasks.served import choose_model
from jobs.tasks.task import ItemSpec, Spec, Task
from jobs.work import Done, Failed, News, Work
from jobs.worker import in_thread
from serve.admission import Admission
from serve.auth import Caller, Doors
from serve.backend import Backend
from serve.data_sets import DataSets
from serve.metrics import IngressMetrics
from serve.settings import AppArgs
from serve.studies import Studies

SEARCHES = 4  # in PACSs at once, of an ingress
LISTINGS = 2  # of data sets
MAX_LIVE_ITEMS = 16  # more would keep a connection open for minutes: that is a job


@dataclass
class Service:
    """One for each ingress process."""

    args: AppArgs
    backend: Backend
    store: JobStore = field(init=False)
    sink: Sink = field(init=False)
    doors: Doors = field(init=False)
    admission: Admission = field(init=False)
    studies: Studies = field(init=False)
    data_sets: DataSets = field(init=False)
    metrics: IngressMetrics = field(default_factory=IngressMetrics)
    link_secret: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.store = JobStore(self.args.store)
        self.sink = Sink(self.args.results)
        self.studies = Studies(self.args.pacs, SEARCHES)
        self.data_sets = DataSets(self.args.stores, self.args.copies, LISTINGS)
        self.link_secret = link_secret(self.store)
        self.doors = Doors(KeyStore(self.args.store), self.args.require_keys)
        self.admission = Admission(
            self.args.max_live_requests_per_key, self.args.max_queued_requests_per_key
        )

    async def make(
        self, caller: Caller, task: Task, spec: Spec
    ) -> tuple[Work, list[Done | Failed]]:
        """All items of a live request.

        Raises:
            InvalidInput, ModelRefused: the request cannot be met.
            Busy: there is no room, or the quota is spent.
            MedphantomError: an item failed for a reason that is not the caller's.
        """
        work = self.live(caller, task, spec)
        async with self._admitted(caller, task, spec):
            ends = await self.backend.make(work)
            for end in ends:
                if isinstance(end, Failed):
                    raise (MedphantomError if end.retry else InvalidInput)(end.reason)
        return work, ends

    async def news(
        self, caller: Caller, task: Task, spec: Spec, step_s: float
    ) -> AsyncIterator[News]:
        """News of a live request; raises what `make` raises, before the first."""
        work = self.live(caller, task, spec, step_s)
        async with self._admitted(caller, task, spec), aclosing(self.backend.run(work)) as news:  # type: ignore[type-var]
            async for each in news:
                yield each

    def live(self, caller: Caller, task: Task, spec: Spec, step_s: float | None = None) -> Work:
        """The work of a request that somebody waits for."""
        request_id = new_id("req")
        items = dict(enumerate(task.items(spec, request_id)))
        if len(items) > MAX_LIVE_ITEMS:
            raise InvalidInput(
                f"{len(items)} images are asked for, but an answer holds at most {MAX_LIVE_ITEMS}; "
                "send Prefer: respond-async to make a job of it"
            )
        spec = self.resolved(task, spec)
        return Work(
            task.name, request_id, caller.owner, spec.model_dump(mode="json"), items, step_s=step_s
        )

    async def create_job(
        self, caller: Caller, task: Task, spec: Spec, job_id: str | None = None
    ) -> tuple[Job, bool]:
        """A job, and whether it is new.

        Raises:
            Conflict: the id is taken by another.
            NotAllowed, InvalidInput, PeerFailed: it names a study or a data set, and may not, or
                there is none of which it could be made.
        """
        spec = self.resolved(task, spec)
        light, uploads = task.detach(spec)
        job_id = job_id or new_id("job")
        items, work = await self._split(caller, task, spec, job_id)
        await self.doors.spend(caller, work)
        made = False
        try:
            await self._keep(uploads)
            job, made = await in_thread(
                self.store.create,
                job_id,
                task.name,
                caller.owner,
                light,
                items,
                self.args.result_ttl_hours * 3600,
            )
        finally:
            if not made:
                await self.doors.refund(caller, work)
        return job, made

    async def _split(
        self, caller: Caller, task: Task, spec: Spec, job_id: str
    ) -> tuple[list[ItemSpec], float]:
        """The items of a job, and the work of all."""
        if isinstance(spec, DataSetSpec):
            caller.require(Scope.DATA)
            return await self.data_sets.items(spec)
        study = task.study(spec)
        if study is None:
            return task.items(spec, job_id), task.work(spec)
        caller.require(Scope.PACS)
        items = task.study_items(spec, await self.studies.search(study))
        return items, task.work(spec) * len(items)

    async def _keep(self, uploads: dict[str, bytes]) -> None:
        """Put the files of a spec where the job's worker finds them."""
        try:
            for digest, data in uploads.items():
                await in_thread(self.sink.put_upload, digest, data)
        except OSError as error:
            raise MedphantomError("the store of results is full or away; try later") from error

    def resolved(self, task: Task, spec: Spec) -> Spec:
        """The spec with its model named. Raises InvalidInput for one that does not fit."""
        model = choose_model(task, self.args.models, spec.model)
        named = spec if spec.model else spec.model_copy(update={"model": model})
        task.check_model(named)
        return named

    @asynccontextmanager
    async def _admitted(self, caller: Caller, task: Task, spec: Spec) -> AsyncIterator[None]:
        """A place for a live request, paid from its caller's quota unless it fails.

        Who hangs up has paid: or quotas would not bound the work of who always does.
        """
        async with self.admission.place(caller.owner):
            work = task.work(spec)
            await self.doors.spend(caller, work)
            try:
                yield
            except Exception:
                await self.doors.refund(caller, work)
                raise


def new_id(kind: str) -> str:
    """An id nobody can guess."""
    return f"{kind}-{uuid.uuid4().hex}"


def service_of(request: Request) -> Service:
    """The service of a request, as a FastAPI dependency."""
    service: Service = request.app.state.service
    return service
