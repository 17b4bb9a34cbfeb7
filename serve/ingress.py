"""The deployment that answers HTTP."""

from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.handle import DeploymentHandle

from jobs.worker import in_thread
from serve.api import create_api
from serve.logs import join_serve_logs
from serve.ray_backend import RayBackend
from serve.service import Service
from serve.settings import AppArgs, check_exposure


@serve.ingress()
class Ingress:
    """The API over the samplers."""

    def __init__(self, args: AppArgs, sampler: DeploymentHandle, worker: DeploymentHandle) -> None:
        # the worker is nobody's to call: it is here because an application starts what its
        # ingress is given
        del worker
        join_serve_logs()
        # Serve has no public word for the address its proxies listen on
        client: Any = _get_global_client()
        host = client.http_config.host or "127.0.0.1"
        check_exposure(args, host)
        self._service = Service(args, RayBackend(sampler))

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_api(self._service)

    async def check_health(self) -> None:
        """Raise if the database is away."""
        await in_thread(self._service.store.counts)
