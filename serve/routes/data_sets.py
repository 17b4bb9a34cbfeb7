"""What comes of jobs over data sets, by keys or by signed links that a browser can open."""

import time
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials

from gen.errors import InvalidInput
from jobs.job import Job
from jobs.keys import Scope
from jobs.links import OUTPUTS, check
from jobs.tasks.data_set import DataSet
from jobs.worker import in_thread
from serve import data_set_outputs
from serve.accept import preferred
from serve.auth import bearer
from serve.errors import RESPONSES
from serve.routes.jobs import NOT_FOUND, JobId, TheService, job_of

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses={**RESPONSES, **NOT_FOUND})

HTML = "text/html"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"


async def readable(
    job_id: JobId,
    service: TheService,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    expires: Annotated[int | None, Query(ge=0, le=2**53, description="As the link has it")] = None,
    signature: Annotated[str | None, Query(max_length=100)] = None,
) -> Job:
    """The job of a signed link, or one of the caller's."""
    if expires is not None and signature is not None:
        check(service.link_secret, job_id, OUTPUTS, expires, signature, time.time())
        job = await in_thread(service.store.get, job_id)
    else:
        secret = credentials.credentials if credentials else None
        job = await job_of(service, await service.doors.caller(secret, Scope.JOBS), job_id)
    if job.task != DataSet.name:
        raise InvalidInput(f"job {job.id} is of {job.task}; only those of {DataSet.name} have this")
    return job


Readable = Annotated[Job, Depends(readable)]


@router.get(
    "/{job_id}/report",
    responses={
        200: {"content": {HTML: {}, "application/json": {}}},
        406: {"description": "Accept names neither HTML nor JSON"},
    },
)
async def report(request: Request, job: Readable, service: TheService) -> Response:
    """What was made of a data set so far, and what its gates let pass, of whom.

    HTML, or JSON as `medphantom jobs run` writes it, as Accept prefers.
    """
    if preferred(request.headers.get("accept"), ["application/json", HTML]) == HTML:
        text = await in_thread(data_set_outputs.page, service.store, service.sink, job)
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})
    return JSONResponse(await in_thread(data_set_outputs.figures, service.store, service.sink, job))


@router.get(
    "/{job_id}/samples.tar",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-tar": {}}}},
)
async def samples(job: Readable, service: TheService) -> StreamingResponse:
    """A WebDataset of what is made so far: samples as the shards of `medphantom jobs run` have."""
    parts = data_set_outputs.samples(service.store, service.sink, job)
    return _download(parts, "application/x-tar", f"{job.id}.tar")


@router.get(
    "/{job_id}/errors.jsonl",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {}}}},
)
async def errors(job: Readable, service: TheService) -> StreamingResponse:
    """A line of JSON for each row that could not be made so far, with its reason."""
    lines = data_set_outputs.errors(service.store, job)
    return _download(lines, "application/x-ndjson", f"{job.id}-errors.jsonl")


def _download(parts: Iterator[bytes], media_type: str, name: str) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(parts, media_type=media_type, headers=headers)
