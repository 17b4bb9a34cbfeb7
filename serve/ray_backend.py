"""Samplers behind Ray Serve's handles: who is full, who died, who must be told."""

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from prometheus_client import Metric
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from gen.errors import Busy, MedphantomError
from jobs.work import Done, Failed, News, Work
from serve.backend import Refused

log = logging.getLogger("medphantom.ingress")

TRIES = 3  # a request whose sampler died is made again: the same seed gives the same image
BROADCAST_S = 5.0
RETRY_AFTER_S = 2.0


class RayBackend:
    """The samplers of an application.

    Args:
        sampler: handle of the deployment `Sampler`.
    """

    def __init__(self, sampler: DeploymentHandle) -> None:
        self._sampler = sampler

    async def make(self, work: Work) -> list[Done | Failed]:
        """See `serve.backend.Backend`."""
        for _ in range(TRIES):
            try:
                answer = await self._sampler.make.remote(work)
            except RayActorError:
                log.warning("a sampler died; its request is made again")
                continue
            except (BackPressureError, DeploymentUnavailableError) as error:
                raise _busy() from error
            return _unwrap(answer)
        raise MedphantomError(f"{TRIES} samplers died one after another; try again later")

    async def run(self, work: Work) -> AsyncIterator[News]:
        """See `serve.backend.Backend`."""
        items = dict(work.items)
        for _ in range(TRIES):
            try:
                async for news in self.run_once(replace(work, items=dict(items))):
                    if isinstance(news, Done | Failed):
                        del items[news.index]
                    yield news
            except RayActorError:
                log.warning("a sampler died; its request is made again")
                continue
            return
        raise MedphantomError(f"{TRIES} samplers died one after another; try again later")

    async def run_once(self, work: Work) -> AsyncIterator[News]:
        """News of a request from one sampler. Raises RayActorError if that dies."""
        stream: Any = self._sampler.options(stream=True).run.remote(work)
        ended = False
        try:
            async for each in stream:
                yield _unwrap(each)
            ended = True
        except (BackPressureError, DeploymentUnavailableError) as error:
            raise _busy() from error
        finally:
            if not ended:
                stream.cancel()  # nobody listens: stop the work

    async def cancel(self, request_id: str) -> None:
        """See `serve.backend.Backend`."""
        await self._broadcast("cancel", request_id)

    async def metrics(self) -> dict[str, list[Metric]]:
        """See `serve.backend.Backend`."""
        answers = await self._broadcast("metrics")
        return {f"sampler-{index}": each for index, each in enumerate(answers)}

    async def is_ready(self) -> bool:
        """See `serve.backend.Backend`."""
        for application in serve.status().applications.values():
            sampler = application.deployments.get("Sampler")
            if sampler is not None:
                return sampler.status in ("HEALTHY", "UPSCALING", "DOWNSCALING")
        return False

    async def _broadcast(self, method: str, *args: Any) -> list[Any]:
        """What every sampler that lives answers."""
        try:
            response = self._sampler.broadcast(method, *args)
            answers = await response.results_async(timeout_s=BROADCAST_S, return_exceptions=True)
        except (RayActorError, TimeoutError, DeploymentUnavailableError):
            return []
        return [each for each in answers if not isinstance(each, Exception)]


def _unwrap(answer: Any) -> Any:
    if isinstance(answer, Refused):
        raise answer.error
    return answer


def _busy() -> Busy:
    return Busy(
        "every sampler has as many requests as it can hold; try again, or make a job of it with "
        "Prefer: respond-async",
        retry_after_s=RETRY_AFTER_S,
        reason="queue",
    )
