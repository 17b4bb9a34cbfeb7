"""Around every request: its size, its figures, its headers, and a last word if all else fails.

Plain ASGI: middleware that wraps responses in tasks of its own would keep a caller's going away
from those who work for them.
"""

import logging
import time

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import answer
from serve.metrics import IngressMetrics

log = logging.getLogger("medphantom.ingress")

HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),  # links to results are signed
    (b"cache-control", b"no-store"),
]


class Porch:
    """The outermost layer of the service."""

    def __init__(self, app: ASGIApp, metrics: IngressMetrics, max_body_bytes: int) -> None:
        self._app = app
        self._metrics = metrics
        self._max_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.monotonic(), 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                names = {name for name, _ in message["headers"]}
                extra = [pair for pair in HEADERS if pair[0] not in names]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        try:
            if (refusal := self._refusal(scope)) is not None:
                await refusal(scope, receive, send_marked)
            else:
                await self._app(scope, self._counted(receive), send_marked)
        except Exception as error:
            # the message of a foreign error may quote the request
            log.error("a request failed with %s", type(error).__name__)
            if status == 0:
                failure = answer(500, "internal_error", "the service failed; please report it")
                await failure(scope, receive, send_marked)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # the template, not the path
            self._metrics.requests.labels(route, str(status or "gone")).inc()
            taken = 1000 * (time.monotonic() - started)
            log.info("%s %s %s %.0f ms", scope["method"], route, status or "gone", taken)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit():
            return answer(400, "http_error", "Content-Length is no number")
        return self._too_large() if int(declared) > self._max_bytes else None

    def _too_large(self) -> JSONResponse:
        return answer(413, "too_large", f"the body may have at most {self._max_bytes} bytes")

    def _counted(self, receive: Receive) -> Receive:
        """The body's messages, cut off when they grow too large."""
        seen = 0

        async def receive_counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                raise HTTPException(413, f"the body may have at most {self._max_bytes} bytes")
            return message

        return receive_counted
