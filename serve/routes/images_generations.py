"""OpenAI's images API, as its clients send it, over the task text-to-cxr."""

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sse_starlette import EventSourceResponse, ServerSentEvent

from gen.errors import InvalidInput, MedphantomError
from jobs.tasks import TASKS
from jobs.tasks.served import choose_model
from jobs.tasks.text_to_cxr import TextToCXRSpec
from jobs.work import Done, Failed, News, Preview
from serve.answers import STEP_S
from serve.auth import Generating
from serve.errors import RESPONSES, answer_of
from serve.service import MAX_LIVE_ITEMS, Service, service_of

router = APIRouter(tags=["generate"])
Count = Annotated[int, Field(ge=1, le=MAX_LIVE_ITEMS)]


class ImagesRequest(BaseModel):
    """The fields of OpenAI's request that mean something here; others are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")
    model: str | None = Field(None, max_length=200, description="One of GET /v1/models")
    n: Count | None = Field(1, description="Images")
    size: str | None = Field(
        "auto", pattern=r"^(auto|[0-9]{2,4}x[0-9]{2,4})$", description="WIDTHxHEIGHT, or auto"
    )
    quality: Literal["auto", "low", "medium", "high", "standard", "hd"] | None = Field(
        "auto", description="low takes 12 solver steps, medium and auto 25, high and hd 50"
    )
    response_format: Literal["b64_json"] | None = Field(
        "b64_json", description="Images come in the answer; links would need a store of their own"
    )
    output_format: Literal["png"] | None = Field("png")
    stream: bool | None = Field(False, description="Send events instead of one answer")
    partial_images: int | None = Field(
        0, ge=0, le=3, description="Pictures of the unfinished image, when streaming; n must be 1"
    )
    background: Literal["auto", "opaque"] | None = "auto"
    moderation: Literal["auto", "low"] | None = "auto"
    user: str | None = Field(None, max_length=200, description="Accepted, and not kept")


STEPS = {"low": 12, "high": 50, "hd": 50}
DEFAULT_STEPS = 25


@router.post(
    "/v1/images/generations",
    responses={**RESPONSES, 200: {"content": {"text/event-stream": {}}}},
)
async def images_generations(
    body: ImagesRequest,
    caller: Generating,
    service: Annotated[Service, Depends(service_of)],
) -> Response:
    """Make images as OpenAI's client asks for them, partial images included."""
    task = TASKS["text-to-cxr"]
    spec = to_spec(body, choose_model(task, service.args.models, body.model))
    if not body.stream:
        _, ends = await service.make(caller, task, spec)
        data = [_image(end) for end in ends if isinstance(end, Done)]
        return JSONResponse({"created": int(time.time()), "data": data, **_echo(spec)})
    if spec.n > 1:
        raise InvalidInput(f"n is {spec.n}, but a stream shows one image; set n to 1")
    news = service.news(caller, task, spec, STEP_S)
    await anext(news)  # what is wrong from the start is an error, not a stream
    return EventSourceResponse(_events(news, spec, body.partial_images or 0))


def to_spec(body: ImagesRequest, model: str) -> TextToCXRSpec:
    """The request in our own words."""
    size = body.size or "auto"
    width, height = (None, None) if size == "auto" else map(int, size.split("x"))
    fields = {
        "prompt": body.prompt,
        "model": model,
        "n": body.n or 1,
        "num_inference_steps": STEPS.get(body.quality or "auto", DEFAULT_STEPS),
        "previews": bool(body.stream and body.partial_images),
    }
    for name, side in (("width", width), ("height", height)):
        if side is not None and not 32 <= side <= 1024:
            raise InvalidInput(f"size has the {name} {side}, but it must be from 32 to 1024")
    return TextToCXRSpec(**fields, width=width, height=height)


async def _events(
    news: AsyncIterator[News], spec: TextToCXRSpec, partial_images: int
) -> AsyncIterator[ServerSentEvent]:
    sent = 0
    async with aclosing(news):  # type: ignore[type-var]
        try:
            async for each in news:
                if isinstance(each, Preview) and sent < partial_images:
                    yield _event("partial_image", spec, each.png, partial_image_index=sent)
                    sent += 1
                elif isinstance(each, Done):
                    yield _event("completed", spec, each.made.data, usage=_USAGE)
                elif isinstance(each, Failed):
                    raise InvalidInput(each.reason)
        except MedphantomError as error:
            detail = json.loads(bytes(answer_of(error).body))["error"]
            yield ServerSentEvent(json.dumps({"type": "error", "error": detail}), event="error")


_USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
}


def _event(kind: str, spec: TextToCXRSpec, png: bytes, **more: Any) -> ServerSentEvent:
    name = f"image_generation.{kind}"
    picture = base64.b64encode(png).decode()
    created = int(time.time())
    data = {"type": name, "b64_json": picture, "created_at": created, **_echo(spec), **more}
    return ServerSentEvent(json.dumps(data), event=name)


def _image(end: Done) -> dict[str, Any]:
    picture = base64.b64encode(end.made.data).decode()
    return {"b64_json": picture, "seed": end.made.record["seed"], "record": end.made.record}


def _echo(spec: TextToCXRSpec) -> dict[str, str]:
    size = f"{spec.width}x{spec.height}" if spec.width else "auto"
    steps = {steps: name for name, steps in STEPS.items()}
    quality = steps.get(spec.num_inference_steps, "medium")
    return {
        "background": "opaque",
        "output_format": "png",
        "quality": "high" if quality == "hd" else quality,
        "size": size,
    }
