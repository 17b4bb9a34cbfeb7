"""Jobs: work that outlives its request, and every process of the service."""

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Response

from jobs.job import Job
from jobs.tasks import TASKS
from jobs.worker import in_thread
from serve.auth import Caller, WithJobs
from serve.errors import RESPONSES
from serve.links import image_link, job_answer
from serve.schemas import (
    JOB_ID,
    MAX_PAGE,
    ItemPage,
    JobAnswer,
    JobPage,
    JobRequest,
    item_json,
)
from serve.service import Service, service_of

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=RESPONSES)

TheService = Annotated[Service, Depends(service_of)]
JobId = Annotated[str, Path(pattern=JOB_ID, description="1 to 64 letters, digits, _ or -")]
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "No such job of yours"}}


async def job_of(service: Service, caller: Caller, job_id: str) -> Job:
    """A job of the caller's. Raises NotFound."""
    return await in_thread(service.store.get, job_id, caller.owner)


def id_of(caller: Caller, idempotency_key: str | None) -> str | None:
    """The id that a caller's key always gives; None, for a new one, if there is no key."""
    if idempotency_key is None:
        return None
    text = f"{caller.owner}/{idempotency_key}".encode()
    return f"job-{hashlib.sha256(text).hexdigest()[:32]}"


@router.post("", status_code=201)
async def create_job(
    body: JobRequest,
    response: Response,
    caller: WithJobs,
    service: TheService,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> JobAnswer:
    """Accept a job. It will be finished, whatever process dies meanwhile.

    A `data-set` is any task over the rows of a manifest in a configured store; a key needs the
    scope `data`. With an Idempotency-Key the same request may be sent again and makes one job.
    """
    job_id = id_of(caller, idempotency_key)
    job, _ = await service.create_job(caller, TASKS[body.task], body.spec, job_id)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job_answer(service, job)


@router.put("/{job_id}", responses={201: {"model": JobAnswer, "description": "It is new"}})
async def put_job(
    job_id: JobId,
    body: JobRequest,
    response: Response,
    caller: WithJobs,
    service: TheService,
) -> JobAnswer:
    """Accept a job under an id of yours; sent again, it is still one job.

    The same id with another body is refused with 422.
    """
    job, made = await service.create_job(caller, TASKS[body.task], body.spec, job_id)
    response.status_code = 201 if made else 200
    return job_answer(service, job)


@router.get("")
async def list_jobs(
    caller: WithJobs,
    service: TheService,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    before: Annotated[str | None, Query(max_length=200, description="`next` of a page")] = None,
) -> JobPage:
    """Your jobs, newest first."""
    jobs, cursor = await in_thread(service.store.list, caller.owner, limit, before)
    return JobPage(jobs=[job_answer(service, job) for job in jobs], next=cursor)


@router.get("/{job_id}", responses=NOT_FOUND)
async def get_job(
    job_id: JobId,
    caller: WithJobs,
    service: TheService,
) -> JobAnswer:
    """How a job stands."""
    return job_answer(service, await job_of(service, caller, job_id))


@router.delete("/{job_id}", responses=NOT_FOUND)
async def cancel_job(
    job_id: JobId,
    caller: WithJobs,
    service: TheService,
) -> JobAnswer:
    """Cancel what is queued, and what runs at its next step; results made so far remain."""
    await job_of(service, caller, job_id)
    job = await in_thread(service.store.cancel, job_id)
    await service.backend.cancel(job_id)
    return job_answer(service, job)


@router.get("/{job_id}/items", responses=NOT_FOUND)
async def list_items(
    job_id: JobId,
    caller: WithJobs,
    service: TheService,
    start: Annotated[int, Query(ge=0, le=2**31 - 1, description="Index of the first item")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> ItemPage:
    """Each item's state, record, error, and a link to its image."""
    job = await job_of(service, caller, job_id)
    items = await in_thread(service.store.items, job_id, start, limit)
    answers = [item_json(item, image_link(service, job, item)) for item in items]
    more = bool(items) and items[-1].index + 1 < job.num_items
    return ItemPage(items=answers, next=items[-1].index + 1 if more else None)
