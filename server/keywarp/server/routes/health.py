"""The routes for orchestrators and Prometheus."""

from http import HTTPStatus

from fastapi import APIRouter, Response

from keywarp.server.problems import documented
from keywarp.server.routes.dependencies import UNAVAILABLE, ServiceDependency

router = APIRouter()


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Tell that the process lives."""
    return {"status": "ok"}


@router.get("/readyz", responses=UNAVAILABLE | documented(HTTPStatus.INTERNAL_SERVER_ERROR))
async def readyz(service: ServiceDependency) -> dict[str, str]:
    """Tell whether streams can be created: the models are loaded and warm, and the server isn't draining."""
    service.check_ready()
    return {"status": "ready"}


@router.get("/metrics", response_class=Response)
async def metrics(service: ServiceDependency) -> Response:
    """Return the Prometheus metrics."""
    return Response(service.metrics.exposition(), media_type=service.metrics.content_type)
