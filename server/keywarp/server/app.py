"""The FastAPI application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from keywarp.server import dashboard, problems
from keywarp.server.pulls import Pulls
from keywarp.server.routes import health, models, open_inference, streams, videos, watch, websocket
from keywarp.server.routes.sequences import Sequences
from keywarp.server.security.keys import Access, AccessMiddleware
from keywarp.server.security.origins import OriginMiddleware
from keywarp.server.security.quotas import Limits
from keywarp.server.service import Service
from keywarp.server.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Create the application. It loads the models when it starts; `service_of` gives its service.

    Run it with `keywarp.server.run`, which drains it before it stops, or with any ASGI server that limits the size of
    WebSocket messages.

    Raises:
        BundleError: A bundle can't be used, there is none, or the settings name a model that doesn't exist.
        KeyFileError: The API keys can't be read.
        SiteError: The file of streams and sinks can't be used.
        TracesError: Traces can't be exported.
    """
    service = Service(settings)
    pulls = Pulls(service)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            starting = asyncio.create_task(pulls.start_site())
            try:
                yield
            finally:
                service.draining.set()  # which other ASGI servers don't do before
                starting.cancel()
                await pulls.close()

    telemetry = service.traces.of_requests if service.traces else None
    app = FastAPI(
        title="Keywarp",
        version=version("keywarp"),
        docs_url=None,  # FastAPI's page loads scripts from another host; the dashboard has its own
        redoc_url=None,
        lifespan=lifespan,
        telemetry=telemetry,
    )
    app.state.service = service
    app.state.pulls = pulls
    app.state.sequences = Sequences(service)
    for module in (health, streams, videos, websocket, watch, models):
        app.include_router(module.router)
    app.include_router(open_inference.router)
    app.include_router(models.repository)
    app.include_router(dashboard.router)
    problems.install(app)
    if settings.keys:
        access = Access.read(settings.keys, Limits(streams=settings.key_streams, rate=settings.key_rate))
        app.add_middleware(AccessMiddleware, access=access, metrics=service.metrics)
    else:
        app.add_middleware(OriginMiddleware, allowed=settings.allow_origin, host=settings.host, metrics=service.metrics)
    if settings.allow_origin:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.allow_origin, allow_methods=["*"], allow_headers=["*"]
        )
    return app


def service_of(app: FastAPI) -> Service:
    """Return the service of an application."""
    service: Service = app.state.service
    return service
