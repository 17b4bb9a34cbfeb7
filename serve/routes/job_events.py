"""What happens to a job, as it happens or by asking."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from sse_starlette import EventSourceResponse, ServerSentEvent

from gen.errors import MedphantomError
from jobs.job import Event, Job
from jobs.worker import in_thread
from serve.accept import preferred
from serve.auth import WithJobs
from serve.errors import RESPONSES
from serve.links import image_link
from serve.routes.jobs import NOT_FOUND, JobId, TheService, job_of
from serve.schemas import EventPage, event_json
from serve.service import Service

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses={**RESPONSES, **NOT_FOUND})

POLL_S = 0.2  # a watcher learns of an event so much later at most
EVENTS_A_READ = 500
LAST = "finished"


@router.get(
    "/{job_id}/events",
    responses={200: {"model": EventPage, "content": {"text/event-stream": {}}}},
)
async def job_events(
    job_id: JobId,
    request: Request,
    caller: WithJobs,
    service: TheService,
    after: Annotated[int, Query(ge=0, le=2**53, description="Number of the last event seen")] = 0,
    last_event_id: Annotated[str | None, Header(description="As browsers send it")] = None,
) -> Response:
    """Server-sent events from the first, or from `Last-Event-ID` on, until `finished`.

    With `Accept: application/json`, those there are so far.
    """
    job = await job_of(service, caller, job_id)
    if last_event_id is not None and last_event_id.isdecimal() and len(last_event_id) < 16:
        after = int(last_event_id)
    kind = preferred(request.headers.get("accept"), ["text/event-stream", "application/json"])
    if kind == "application/json":
        events = await _read(service, job, after)
        number = events[-1].seq if events else after
        answer = EventPage(events=[event_json(event) for event in events], next=number)
        return JSONResponse(answer.model_dump(mode="json"))
    return EventSourceResponse(_follow(service, job, after))


async def _follow(service: Service, job: Job, after: int) -> AsyncIterator[ServerSentEvent]:
    """Events as they come; the stream ends with the job, or when the job is forgotten."""
    while True:
        try:
            events = await _read(service, job, after)
        except MedphantomError:
            return
        for event in events:
            after = event.seq
            yield ServerSentEvent(json.dumps(event.data), event=event.kind, id=str(event.seq))
            if event.kind == LAST:
                return
        if not events:
            if (await in_thread(service.store.get, job.id)).state.is_final:
                if not await _read(service, job, after):
                    return  # the caller has seen the last one already
                continue
            await asyncio.sleep(POLL_S)


async def _read(service: Service, job: Job, after: int) -> list[Event]:
    """Events with links to the results they tell of."""
    events = await in_thread(service.store.events, job.id, after, EVENTS_A_READ)
    return [await _with_link(service, job, event) for event in events]


async def _with_link(service: Service, job: Job, event: Event) -> Event:
    if event.kind != "item" or event.data.get("status") != "succeeded":
        return event
    item = await in_thread(service.store.item, job.id, event.data["index"])
    link = image_link(service, job, item)
    data: dict[str, Any] = {**event.data, "image": link and link.model_dump(mode="json")}
    return Event(event.seq, event.kind, event.at, data)
