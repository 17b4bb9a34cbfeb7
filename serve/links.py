"""Links to results, which end with their job."""

from datetime import UTC, datetime
from pathlib import PurePosixPath

from jobs.job import Item, Job
from jobs.links import OUTPUTS, sign
from jobs.sink import SUFFIXES
from jobs.tasks.data_set import DataSet
from serve.schemas import ImageLink, JobAnswer, job_json
from serve.service import Service

MEDIA_TYPES = {suffix: media_type for media_type, suffix in SUFFIXES.items()}


def media_type_of(file: str) -> str:
    """Of a file of the sink, by its suffixes."""
    return MEDIA_TYPES[PurePosixPath(file).name.partition(".")[2]]


def image_link(service: Service, job: Job, item: Item) -> ImageLink | None:
    """A link that works without a key until the job is forgotten; None before there is a result."""
    if item.file is None or item.sha256 is None or item.size is None:
        return None
    expires = int(job.expires_at)
    signature = sign(service.link_secret, job.id, item.index, expires)
    return ImageLink(
        url=f"/v1/results/{job.id}/{item.index}?expires={expires}&signature={signature}",
        expires_at=datetime.fromtimestamp(expires, UTC),
        media_type=media_type_of(item.file),
        sha256=item.sha256,
        bytes=item.size,
    )


def job_answer(service: Service, job: Job) -> JobAnswer:
    """A job as callers see it, with links that a browser can open."""
    return job_json(job, output_links(service, job))


def output_links(service: Service, job: Job) -> dict[str, str]:
    """Of a data set: its report, samples and errors, without a key until the job is forgotten."""
    if job.task != DataSet.name:
        return {}
    expires = int(job.expires_at)
    signature = sign(service.link_secret, job.id, OUTPUTS, expires)
    query = f"?expires={expires}&signature={signature}"
    names = {"report": "report", "samples": "samples.tar", "errors": "errors.jsonl"}
    return {name: f"/v1/jobs/{job.id}/{path}{query}" for name, path in names.items()}
