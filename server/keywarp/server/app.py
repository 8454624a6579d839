"""The FastAPI application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Final

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from keywarp.server import dashboard, openapi, problems
from keywarp.server.cameras import Cameras
from keywarp.server.pulls import Pulls
from keywarp.server.reloading import Reloader
from keywarp.server.routes import (
    annotated,
    events,
    fleet,
    health,
    models,
    open_inference,
    reload,
    streams,
    videos,
    wall,
    watch,
    websocket,
)
from keywarp.server.routes.request_body import BodyMiddleware
from keywarp.server.routes.sequences import Sequences
from keywarp.server.security.addresses import AddressMiddleware
from keywarp.server.security.keys import ApiKeyMiddleware
from keywarp.server.security.origins import OriginMiddleware
from keywarp.server.service import Service
from keywarp.server.settings import Settings

OPEN_PATHS: Final = ("/", "/healthz", "/readyz", "/docs", "/openapi.json")  # paths that need no API key


def create_app(settings: Settings, service: Service | None = None) -> FastAPI:
    """Create the application, which loads the models when it starts. `service_of` returns its service.

    Run it with `keywarp.server.process.run`, which drains it before it stops, or with any ASGI server that limits the
    size of WebSocket messages.

    Args:
        settings: The operator's settings.
        service: The service behind the application, made from the same settings, or None for a new one.

    Raises:
        BundleError: A bundle can't be used, there are no bundles, or the settings name a model that doesn't exist.
        CameraStoreError: The database of cameras can't be opened.
        EventStoreError: The database of events can't be opened.
        KeyFileError: The API keys can't be read.
        SiteError: The file of streams and sinks can't be used.
        TracesError: Traces can't be exported.
    """
    service = service or Service(settings)
    try:
        cameras = Cameras(service, Pulls(service))
    except BaseException:
        service.events.abandon()
        raise

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            starting = asyncio.create_task(cameras.start())
            try:
                yield
            finally:
                service.draining.set()  # needed because only our own server drains before it shuts down
                starting.cancel()
                await cameras.close()

    telemetry = service.tracer.request_telemetry if service.tracer else None
    app = openapi.TitledAPI(
        title="Keywarp",
        version=version("keywarp"),
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        docs_url=None,  # FastAPI's page loads scripts from another host; the dashboard has its own
        redoc_url=None,
        lifespan=lifespan,
        telemetry=telemetry,
    )
    app.state.service = service
    app.state.cameras = cameras
    app.state.reloader = Reloader(service, cameras)
    app.state.sequences = Sequences(service)
    app.state.annotations = annotated.Annotations()
    for tag, modules in (
        (openapi.STREAMS, (streams, websocket, fleet)),
        (openapi.WATCHING, (watch, wall)),
        (openapi.VIDEOS, (videos, annotated)),
        (openapi.EVENTS, (events,)),
        (openapi.MODELS, (models,)),
        (openapi.OPERATION, (health, reload)),
    ):
        for module in modules:
            app.include_router(module.router, tags=[tag])
    app.include_router(open_inference.router)
    app.include_router(models.repository)
    app.include_router(dashboard.router)
    count_refused = service.metrics.count_refused
    problems.install(app, count_refused)
    app.add_middleware(BodyMiddleware, memory=service.payload_memory, count_refused=count_refused)
    if service.api_keys:
        app.add_middleware(
            ApiKeyMiddleware,
            api_keys=service.api_keys,
            open_paths=OPEN_PATHS,
            open_prefix=dashboard.PREFIX,
            count_refused=count_refused,
        )
    else:
        app.add_middleware(AddressMiddleware, streams=settings.streams_of_address)
        app.add_middleware(
            OriginMiddleware, allowed_origins=settings.allow_origin, host=settings.host, count_refused=count_refused
        )
    if settings.allow_origin:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.allow_origin, allow_methods=["*"], allow_headers=["*"]
        )
    return app


def service_of(app: FastAPI) -> Service:
    """Return the service of an application."""
    service: Service = app.state.service
    return service
