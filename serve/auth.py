"""Who is calling, and what they may do."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from gen.errors import NotAllowed
from jobs.keys import Key, KeyStore, Scope
from jobs.worker import in_thread

LOCAL = "local"  # everybody, where no keys are needed

bearer = HTTPBearer(auto_error=False, description="An API key: medphantom keys create NAME")


@dataclass(frozen=True)
class Caller:
    """Whoever sent a request; `key` is None where no keys are needed."""

    owner: str
    key: Key | None

    def require(self, scope: Scope) -> None:
        """Raise NotAllowed if a key is needed, and theirs lacks the scope."""
        if self.key is not None and scope not in self.key.scopes:
            raise NotAllowed(f"this key lacks the scope {scope.value!r}; use another", known=True)


class Doors:
    """Checks keys, scopes and quotas."""

    def __init__(self, keys: KeyStore, required: bool) -> None:
        self._keys = keys
        self._required = required

    async def caller(self, secret: str | None, scope: Scope) -> Caller:
        """The caller of a secret.

        Raises:
            NotAllowed: no key, an unknown one, or one without the scope.
        """
        if not self._required:
            return Caller(LOCAL, None)
        if secret is None:
            raise NotAllowed("an API key is needed; send it as Authorization: Bearer mp_...")
        key = await in_thread(self._keys.check, secret)
        caller = Caller(key.id, key)
        caller.require(scope)
        return caller

    async def spend(self, caller: Caller, work: float) -> None:
        """Take work from the caller's quota. Raises Busy if it is spent."""
        if caller.key is not None:
            await in_thread(self._keys.spend, caller.key, work)

    async def refund(self, caller: Caller, work: float) -> None:
        """Give back what was not done."""
        if caller.key is not None:
            await in_thread(self._keys.refund, caller.key, work)


def requires(scope: Scope) -> Callable[..., Awaitable[Caller]]:
    """A dependency: the caller, who must have a scope."""

    async def dependency(
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> Caller:
        doors: Doors = request.app.state.service.doors
        return await doors.caller(credentials.credentials if credentials else None, scope)

    return dependency


Generating = Annotated[Caller, Depends(requires(Scope.GENERATE))]
WithJobs = Annotated[Caller, Depends(requires(Scope.JOBS))]
Measuring = Annotated[Caller, Depends(requires(Scope.METRICS))]
