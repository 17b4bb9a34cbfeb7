"""Every error as an answer: one place where exceptions become statuses.

An answer names field and rule, never the value: it may be somebody's text.
"""

import math

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from gen.errors import (
    Busy,
    Conflict,
    InvalidInput,
    MedphantomError,
    ModelRefused,
    NotAllowed,
    NotFound,
)
from jobs.tasks import TASKS
from serve.metrics import IngressMetrics


class ErrorDetail(BaseModel):
    """What went wrong."""

    type: str = Field(description="A word for programs")
    message: str = Field(description="A sentence for people: what to do instead")
    field: str | None = Field(None, description="The field of the request that breaks a rule")


class ErrorAnswer(BaseModel):
    """The body of every answer from 400 on."""

    error: ErrorDetail


STATUSES: dict[type[MedphantomError], tuple[int, str]] = {
    InvalidInput: (422, "invalid_request_error"),
    ModelRefused: (422, "model_refused"),
    NotFound: (404, "not_found"),
    Conflict: (422, "conflict"),
    Busy: (429, "busy"),
    MedphantomError: (503, "unavailable"),
}
RETRY_UNAVAILABLE_S = 5
RESPONSES: dict[int | str, dict[str, object]] = {
    status: {"model": ErrorAnswer, "description": what}
    for status, what in {
        400: "The body is no JSON",
        401: "No or an unknown API key",
        403: "The key lacks the scope",
        413: "The body is too large",
        422: "A field breaks a rule",
        429: "No room now; see Retry-After",
        503: "Not ready; see Retry-After",
    }.items()
}


def install(app: FastAPI, metrics: IngressMetrics) -> None:
    """Answer every exception of the routes."""

    async def ours(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, Busy):
            metrics.rejected.labels(error.reason).inc()
        return answer_of(error)

    for kind in (MedphantomError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, ours)


def answer_of(error: Exception) -> JSONResponse:
    """The answer to an exception."""
    if isinstance(error, RequestValidationError):
        return _validation(error)
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        return answer(error.status_code, "http_error", str(error.detail), headers=headers)
    if isinstance(error, NotAllowed):
        if error.known:
            return answer(403, "permission_error", str(error))
        headers = {"WWW-Authenticate": "Bearer"}
        return answer(401, "authentication_error", str(error), headers=headers)
    status, kind = next(value for cls, value in STATUSES.items() if isinstance(error, cls))
    headers = {}
    if isinstance(error, Busy):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    elif status == 503:
        headers["Retry-After"] = str(RETRY_UNAVAILABLE_S)
    return answer(status, kind, str(error), headers=headers)


def answer(
    status: int,
    kind: str,
    message: str,
    field: str | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """An error in the one shape that all have."""
    body = ErrorAnswer(error=ErrorDetail(type=kind, message=message, field=field))
    return JSONResponse(body.model_dump(), status, headers)


def _validation(error: RequestValidationError) -> JSONResponse:
    """The first rule that is broken; pydantic's own answer would repeat the input."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]][1:]  # without "body", "query", ...
    # members of unions are named after their types, which callers never see
    field = ".".join(part for part in place if "[" not in part and part not in _MEMBERS)
    where = f"{field}: " if field else ""
    rule = first["msg"].removeprefix("Value error, ")
    if first["type"] == "union_tag_invalid":  # whose message repeats the input
        rule = f"task must be one of {first['ctx']['expected_tags']}"
    return answer(422, "invalid_request_error", f"{where}{rule}", field or None)


_MEMBERS = {"str", "int", "constrained-str", "constrained-int", "float", "SaidLabels", *TASKS}
