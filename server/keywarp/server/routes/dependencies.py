"""The dependencies of routes, and the errors that many of them document."""

from http import HTTPStatus
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from keywarp.server.cameras import Cameras
from keywarp.server.problems import documented
from keywarp.server.reloading import Reloader
from keywarp.server.routes.sequences import Sequences
from keywarp.server.security.quotas import UNLIMITED, Quota
from keywarp.server.service import Service

UNAVAILABLE = documented(HTTPStatus.SERVICE_UNAVAILABLE)
NOT_FOUND = documented(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE)
CANNOT_CREATE = documented(HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)


def _service(connection: HTTPConnection) -> Service:
    service: Service = connection.app.state.service
    return service


def _sequences(connection: HTTPConnection) -> Sequences:
    sequences: Sequences = connection.app.state.sequences
    return sequences


def _cameras(connection: HTTPConnection) -> Cameras:
    cameras: Cameras = connection.app.state.cameras
    return cameras


def _reloader(connection: HTTPConnection) -> Reloader:
    reloader: Reloader = connection.app.state.reloader
    return reloader


def _quota(connection: HTTPConnection) -> Quota:
    quota: Quota = getattr(connection.state, "quota", UNLIMITED)  # set by the middleware that checks API keys
    return quota


ServiceDependency = Annotated[Service, Depends(_service)]
ReloaderDependency = Annotated[Reloader, Depends(_reloader)]
SequencesDependency = Annotated[Sequences, Depends(_sequences)]
CamerasDependency = Annotated[Cameras, Depends(_cameras)]
QuotaDependency = Annotated[Quota, Depends(_quota)]
