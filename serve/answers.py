"""A live request's answer in the form its caller prefers: files, JSON, events, or a job."""

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from sse_starlette import EventSourceResponse, ServerSentEvent

from gen.data.bundle import media_type, unpack
from gen.errors import MedphantomError
from jobs.job import Job
from jobs.sink import BUNDLE, SUFFIXES
from jobs.tasks.task import Made, Spec, Task
from jobs.work import Done, Failed, News, Preview, Started, Step
from serve.accept import preferred
from serve.auth import Caller
from serve.errors import answer_of
from serve.links import job_answer
from serve.service import Service

EVENTS = "text/event-stream"
STEP_S = 0.1  # between the events of a live item's steps


async def answer_live(
    service: Service, caller: Caller, request: Request, task: Task, spec: Spec, file_type: str
) -> Response:
    """Make what a spec asks for, now, or as a job if the caller prefers.

    Args:
        file_type: media type of one item's file, which may be asked for directly.
    """
    if "respond-async" in request.headers.get("prefer", "").lower():
        job, _ = await service.create_job(caller, task, spec)
        return accepted(service, job, {"Preference-Applied": "respond-async"})
    offers = ["application/json", file_type, EVENTS]
    kind = preferred(request.headers.get("accept"), offers)
    if kind == EVENTS:
        return await stream_live(service, caller, task, spec)
    if kind == file_type:
        task.check_one(spec, file_type)
    started = time.monotonic()
    work, ends = await service.make(caller, task, spec)
    made = [end.made for end in ends if isinstance(end, Done)]
    if kind == file_type:
        return file_response(made[0], f"{work.request_id}-0")
    body = {
        "id": work.request_id,
        "task": task.name,
        "parameters": task.detach(service.resolved(task, spec))[0],
        "images": [{"index": index, **image_json(each)} for index, each in enumerate(made)],
        "seconds": round(time.monotonic() - started, 3),
    }
    return JSONResponse(body)


def accepted(service: Service, job: Job, headers: dict[str, str] | None = None) -> JSONResponse:
    """202, and where the job is."""
    body = job_answer(service, job).model_dump(mode="json")
    return JSONResponse(body, 202, {"Location": f"/v1/jobs/{job.id}", **(headers or {})})


def file_response(made: Made, stem: str) -> Response:
    """One item's file; its record is inside, its seed in a header, too."""
    suffix = SUFFIXES[made.media_type]
    headers = {
        "Content-Disposition": f'inline; filename="{stem}.{suffix}"',
        "X-Medphantom-Seed": str(made.record["seed"]),
    }
    return Response(made.data, media_type=made.media_type, headers=headers)


def image_json(made: Made) -> dict[str, Any]:
    """An item's file, or those it holds, and its record as JSON."""
    return {
        "seed": made.record["seed"],
        **(_files_json(made) if made.media_type == BUNDLE else _file_json(made)),
        "record": made.record,
    }


def _file_json(made: Made) -> dict[str, Any]:
    return {"media_type": made.media_type, "b64": base64.b64encode(made.data).decode()}


def _files_json(made: Made) -> dict[str, Any]:
    files = unpack(made.data)
    made_of = {name: Made(each, media_type(name), {}) for name, each in files.items()}
    return {"files": {name: _file_json(each) for name, each in made_of.items()}}


async def stream_live(
    service: Service, caller: Caller, task: Task, spec: Spec
) -> EventSourceResponse:
    """News of a live request as server-sent events, the images among them."""
    news = service.news(caller, task, spec, STEP_S)
    first = await anext(news)  # what is wrong from the start is an error, not a stream

    async def events() -> AsyncIterator[ServerSentEvent]:
        num_failed = num_done = 0
        async with aclosing(news):  # type: ignore[type-var]
            yield _event(first)
            try:
                async for each in news:
                    num_done += isinstance(each, Done)
                    num_failed += isinstance(each, Failed)
                    yield _event(each)
            except MedphantomError as error:
                yield ServerSentEvent(bytes(answer_of(error).body).decode(), event="error")
                return
        status = "failed" if num_failed else "succeeded"
        end = {"status": status, "num_succeeded": num_done, "num_failed": num_failed}
        yield ServerSentEvent(json.dumps(end), event="finished")

    return EventSourceResponse(events())


def _event(news: News) -> ServerSentEvent:
    match news:
        case Started():
            return _sse("started", index=news.index)
        case Step():
            return _sse("step", index=news.index, step=news.step, num_steps=news.num_steps)
        case Preview():
            return _sse("preview", index=news.index, step=news.step, image=data_uri(news.png))
        case Failed():
            return _sse("item", index=news.index, status="failed", error=news.reason)
        case Done():
            return _sse("item", index=news.index, status="succeeded", **image_json(news.made))


def _sse(kind: str, **data: Any) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(data), event=kind)


def data_uri(png: bytes) -> str:
    """A picture inside an address."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
