"""How large a request's body may be: small ones, and pictures from callers we know."""

from starlette.datastructures import Headers
from starlette.types import Scope as Request

from jobs.keys import Scope
from serve.auth import Doors

# what may bring pictures: POST, and PUT under an id of the caller's
PICTURES = ("/v1/large-images", "/v1/jobs")


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
        if request["method"] not in ("POST", "PUT") or not _takes_pictures(request["path"]):
            return self._small
        headers = Headers(scope=request)
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) <= self._small:
            return self._small
        kind, _, secret = headers.get("authorization", "").partition(" ")
        await self._doors.caller(secret if kind.lower() == "bearer" else None, Scope.JOBS)
        return self._large


def _takes_pictures(path: str) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in PICTURES)
