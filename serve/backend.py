"""Who makes images for the routes: samplers behind handles of Ray, or an executor right here."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol

from prometheus_client import Metric

from gen.errors import MedphantomError
from jobs.work import Done, Failed, News, Work

if TYPE_CHECKING:  # it imports torch, which an ingress does not need
    from jobs.executor import Executor


class Refused:
    """An error of ours on its way to the ingress: Ray would wrap, and log, a raised one."""

    def __init__(self, error: MedphantomError) -> None:
        self.error = error


class Backend(Protocol):
    """What routes need of samplers."""

    async def make(self, work: Work) -> list[Done | Failed]:
        """All items of a request, in their order; cancelling the call stops them.

        Raises:
            InvalidInput, ModelRefused: nothing of it can be made.
            Busy: no sampler has room.
        """
        ...

    def run(self, work: Work) -> AsyncIterator[News]:
        """News of a request; closing the iterator stops it. Raises what `make` raises."""
        ...

    async def cancel(self, request_id: str) -> None:
        """Stop what any sampler does for a request or job."""
        ...

    async def metrics(self) -> dict[str, list[Metric]]:
        """Figures of every sampler by its name."""
        ...

    async def is_ready(self) -> bool:
        """Whether a request could be served now."""
        ...


class LocalBackend:
    """One executor in this process: for tests, and where no cluster is wanted."""

    def __init__(self, executor: "Executor") -> None:
        self._executor = executor

    async def make(self, work: Work) -> list[Done | Failed]:
        """See `Backend`."""
        return await collect(self._executor.run(work))

    def run(self, work: Work) -> AsyncIterator[News]:
        """See `Backend`."""
        return self._executor.run(work)

    async def cancel(self, request_id: str) -> None:
        """See `Backend`."""
        self._executor.cancel(request_id)

    async def metrics(self) -> dict[str, list[Metric]]:
        """See `Backend`."""
        return {}

    async def is_ready(self) -> bool:
        """See `Backend`."""
        return True


async def collect(news: AsyncIterator[News]) -> list[Done | Failed]:
    """The ends of all items, in their order."""
    ends = [each async for each in news if isinstance(each, Done | Failed)]
    return sorted(ends, key=lambda each: each.index)
