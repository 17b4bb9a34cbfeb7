"""Around every request: its size, its figures, its headers, and a last word if all else fails.

Plain ASGI: middleware that wraps responses in tasks of its own would keep a caller's going away
from those who work for them.
"""

import logging
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gen.errors import NotAllowed
from serve.body_caps import BodyCaps
from serve.errors import answer, answer_of
from serve.metrics import IngressMetrics

log = logging.getLogger("medphantom.ingress")

HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),  # links to results are signed
    (b"cache-control", b"no-store"),
]


class Porch:
    """The outermost layer of the service."""

    def __init__(self, app: ASGIApp, metrics: IngressMetrics, caps: BodyCaps) -> None:
        self._app = app
        self._metrics = metrics
        self._caps = caps

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
            answer_now = await self._app_or_refusal(scope)
            await answer_now(scope, receive, send_marked)
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

    async def _app_or_refusal(self, scope: Scope) -> ASGIApp:
        """What answers a request, by its declared size."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit():
            return answer(400, "http_error", "Content-Length is no number")
        try:
            most = await self._caps.of(scope)
        except NotAllowed as error:
            return answer_of(error)
        if int(declared) > most:
            return answer(413, "too_large", _too_large(most))
        return lambda scope, receive, send: self._app(scope, _counted(receive, most), send)


def _too_large(most: int) -> str:
    return f"the body may have at most {most} bytes"


def _counted(receive: Receive, most: int) -> Receive:
    """The body's messages, cut off when they grow too large."""
    seen = 0

    async def receive_counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise HTTPException(413, _too_large(most))
        return message

    return receive_counted
