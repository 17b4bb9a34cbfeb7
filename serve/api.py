"""The HTTP application, whoever makes the images behind it."""

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from gen.data.provenance import software
from serve import errors
from serve.body_caps import BodyCaps
from serve.middleware import Porch
from serve.routes import ROUTERS
from serve.service import Service

DESCRIPTION = (
    "Synthetic medical images to order. Every image is synthetic, of no patient, marked as such, "
    "and not for diagnosis. Longer work is a job: it survives the death of any process."
)


def create_api(service: Service) -> FastAPI:
    """The routes over a service."""
    app = FastAPIOffline(
        title="medphantom", version=software().split()[-1], description=DESCRIPTION, redoc_url=None
    )
    app.state.service = service
    errors.install(app, service.metrics)
    for router in ROUTERS:
        app.include_router(router)
    caps = BodyCaps(service.doors, service.args.max_body_bytes, service.args.max_image_body_bytes)
    app.add_middleware(Porch, metrics=service.metrics, caps=caps)
    return app
