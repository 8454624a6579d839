"""The server as an application of Ray Serve, for `keywarp ray serve`, `serve run` and KubeRay."""

from typing import Final

import cv2
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, model_validator
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from starlette.types import ASGIApp, Receive, Scope, Send

from keywarp.cluster import router
from keywarp.server.app import create_app, service_of
from keywarp.server.connections import raise_file_limit
from keywarp.server.errors import BadMessageError
from keywarp.server.problems import refuse
from keywarp.server.settings import Settings
from keywarp.server.telemetry.logs import log_to_stderr

NAME: Final = "keywarp"
ONGOING: Final = 100_000  # requests of a replica; the server has its own limits, and refuses what is over them


class Scale(BaseModel):
    """How many replicas there are, and what each of them has.

    Attributes:
        min_replicas: The fewest replicas.
        max_replicas: The most replicas.
        streams: The streams, uploads and watchers of a replica above which there are more replicas.
        cpus: The cores that a replica reserves.
        gpus: The GPUs that a replica reserves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=1, ge=1)
    streams: float = Field(default=8, gt=0)
    cpus: float = Field(default=1, gt=0)
    gpus: float = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_order(self) -> "Scale":
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"there can't be at least {self.min_replicas} and at most {self.max_replicas} replicas")
        return self


class Options(BaseModel):
    """What `serve run keywarp.cluster.deployment:application` and Serve's configuration files take as arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: Settings = Settings()
    scale: Scale = Scale()
    log_level: str = "INFO"


class NamedStreams:
    """Middleware that refuses to create a stream under an id that the router can't see."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process a request."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == "/v1/streams":
            detail = "several replicas serve this address: create streams with PUT /v1/streams/{id}"
            await refuse(BadMessageError(detail), scope, receive, send)
        else:
            await self._app(scope, receive, send)


class Replica:
    """One server process, to which Serve's proxies send the requests for its streams."""

    app: FastAPI  # set by Serve

    def __init__(self, options: Options) -> None:
        self._settings = options.settings
        log_to_stderr(options.log_level)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Make the application."""
        cv2.setNumThreads(1)  # as in `keywarp.server.process.run`
        raise_file_limit()
        app = create_app(self._settings)
        app.add_middleware(NamedStreams)
        return app

    async def check_health(self) -> None:
        """Raise the error with which the models couldn't be loaded. A new replica gets no requests before they are."""
        service = service_of(self.app)
        await service.loaded.wait()
        if service.failure:
            raise service.failure


def application(options: Options) -> serve.Application:
    """Make Serve's application of the server.

    Args:
        options: The settings of each replica, and their number. `host` and `port` are those of Serve's proxies.
    """
    scale = options.scale
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name=NAME,
        autoscaling_config=AutoscalingConfig(
            min_replicas=scale.min_replicas,
            max_replicas=scale.max_replicas,
            target_ongoing_requests=scale.streams,
            upscale_delay_s=10,
        ),
        request_router_config=RequestRouterConfig(request_router_class=router.NAME),
        max_ongoing_requests=ONGOING,
        ray_actor_options={"num_cpus": scale.cpus, "num_gpus": scale.gpus},
        health_check_period_s=1.0,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=options.settings.drain_timeout + 10,
    )
    return deployment.bind(options)
