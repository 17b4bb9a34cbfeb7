"""What the service says about jobs, items and models, and how jobs are asked for."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, create_model

from jobs.job import Event, Item, Job
from jobs.tables import State
from jobs.tasks import TASKS

JOB_ID = r"^[A-Za-z0-9_-]{1,64}$"
MAX_PAGE = 1000


def _literal(name: str) -> Any:
    return Literal[name]


def _request_type(name: str, spec_type: type[BaseModel]) -> type[BaseModel]:
    return create_model(
        f"{spec_type.__name__.removesuffix('Spec')}Job",
        __config__=ConfigDict(extra="forbid", frozen=True),
        task=(_literal(name), Field(description="What to make")),
        spec=(spec_type, Field(description="As the task's own route takes it")),
    )


_REQUESTS = tuple(_request_type(name, task.spec_type) for name, task in TASKS.items())
JobRequest: Any = Union[_REQUESTS]  # noqa: UP007 - made of a tuple
"""Body of POST and PUT /v1/jobs: a task and its spec."""
if len(_REQUESTS) > 1:
    JobRequest = Annotated[JobRequest, Field(discriminator="task")]


class JobLinks(BaseModel):
    """Where more is told about a job."""

    self: str
    items: str
    events: str
    report: str | None = Field(
        None, description="Of a data set: what was made and what gates refused; needs no key"
    )
    samples: str | None = Field(
        None, description="Of a data set: a WebDataset of what is made so far; needs no key"
    )
    errors: str | None = Field(
        None, description="Of a data set: a line of JSON for each failed row; needs no key"
    )


class JobAnswer(BaseModel):
    """A job as it stands."""

    id: str
    task: str
    status: State
    spec: dict[str, Any] = Field(
        description="As it was resolved: no default is left open; pictures as their SHA-256"
    )
    num_items: int
    num_succeeded: int
    num_failed: int
    steps_done: int = Field(description="Of all items that have started")
    num_steps: int = Field(description="Of all items that have started")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime = Field(description="When the job and its results are forgotten")
    message: str | None
    links: JobLinks


class JobPage(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobAnswer]
    next: str | None = Field(description="Give it as `before` for the older ones; null at the end")


class ImageLink(BaseModel):
    """A result, by a link that needs no key until it expires."""

    url: str
    expires_at: datetime
    media_type: str
    sha256: str
    bytes: int


class ItemAnswer(BaseModel):
    """One item of a job."""

    index: int
    status: State
    seed: int | None
    steps_done: int
    num_steps: int
    attempts: int
    error: str | None
    record: dict[str, Any] | None = Field(description="All that is needed to make it again")
    image: ImageLink | None


class ItemPage(BaseModel):
    """Items of a job by their index."""

    items: list[ItemAnswer]
    next: int | None = Field(description="Give it as `start` for the rest; null at the end")


class EventAnswer(BaseModel):
    """Something that happened to a job."""

    seq: int
    kind: str = Field(description="queued, started, step, preview, item or finished")
    at: datetime
    data: dict[str, Any]


class EventPage(BaseModel):
    """Events in their order."""

    events: list[EventAnswer]
    next: int = Field(description="Give it as `after` for what happens next")


class ModelAnswer(BaseModel):
    """A model that requests may name."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "medphantom"
    task: str | None
    modality: str | None
    image_size: list[int] | int | None
    licence: str | None
    weight_sha256: str
    minority_levels: dict[str, tuple[float, float]] | None = Field(
        None, description="Lowest and highest level of each minority method it is calibrated for"
    )
    anomaly_rates: dict[str, tuple[float, float]] | None = Field(
        None,
        description="Lowest and highest threshold_fpr of each method of anomaly maps that it is "
        "calibrated for",
    )
    description: str | None = None


class ModelList(BaseModel):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelAnswer]


def job_json(job: Job, outputs: dict[str, str]) -> JobAnswer:
    """A job as callers see it; `outputs` are links to what comes of it as a whole."""
    here = f"/v1/jobs/{job.id}"
    return JobAnswer(
        id=job.id,
        task=job.task,
        status=job.state,
        spec=job.spec,
        num_items=job.num_items,
        num_succeeded=job.num_succeeded,
        num_failed=job.num_failed,
        steps_done=job.steps_done,
        num_steps=job.num_steps,
        created_at=_moment(job.created_at),
        started_at=job.started_at and _moment(job.started_at),
        finished_at=job.finished_at and _moment(job.finished_at),
        expires_at=_moment(job.expires_at),
        message=job.message,
        links=JobLinks(self=here, items=f"{here}/items", events=f"{here}/events", **outputs),
    )


def item_json(item: Item, image: ImageLink | None) -> ItemAnswer:
    """An item as callers see it."""
    return ItemAnswer(
        index=item.index,
        status=item.state,
        seed=item.spec.get("seed"),
        steps_done=item.steps_done,
        num_steps=item.num_steps,
        attempts=item.attempts,
        error=item.error,
        record=item.record,
        image=image,
    )


def event_json(event: Event) -> EventAnswer:
    """An event as callers see it."""
    return EventAnswer(seq=event.seq, kind=event.kind, at=_moment(event.at), data=event.data)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
