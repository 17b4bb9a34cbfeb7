"""How large a request's body may be: small ones, and pictures from callers we know."""

from starlette.datastructures import Headers
from starlette.types import Scope as Request

from jobs.keys import Scope
from serve.auth import Doors

# what may bring pictures, and whom: POST, and PUT under an id of the caller's
PICTURES = {
    "/v1/anomaly-maps": Scope.GENERATE,
    "/v1/large-images": Scope.JOBS,
    "/v1/jobs": Scope.JOBS,
}


class BodyCaps:
    """Most bytes of a body by its route.

    A body is read before its route asks for a key, so strangers could fill the memory with large
    ones: on the routes that take these, the key is asked for here.

    Args:
        doors: that know keys.
        small: bytes of most bodies.
        large: bytes of those with pictures.
    """

    def __init__(self, doors: Doors, small: int, large: int) -> None:
        self._doors = doors
        self._small = small
        self._large = max(small, large)

    async def of(self, request: Request) -> int:
        """Bytes that the body of a request may have.

        Raises:
            NotAllowed: it says or may say more than most bodies, and comes from a stranger.
        """
        scope = _scope_of_pictures(request["path"])
        if request["method"] not in ("POST", "PUT") or scope is None:
            return self._small
        headers = Headers(scope=request)
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) <= self._small:
            return self._small
        kind, _, secret = headers.get("authorization", "").partition(" ")
        await self._doors.caller(secret if kind.lower() == "bearer" else None, scope)
        return self._large


def _scope_of_pictures(path: str) -> Scope | None:
    """What a caller needs to send pictures there; None where nobody may."""
    fitting = (each for each in PICTURES if path == each or path.startswith(f"{each}/"))
    return next((PICTURES[each] for each in fitting), None)
