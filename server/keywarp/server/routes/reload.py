"""The route that reads the operator's files again."""

from http import HTTPStatus

from fastapi import APIRouter

from keywarp.protocol import Reloaded
from keywarp.server.problems import documented
from keywarp.server.routes.dependencies import UNAVAILABLE, ReloaderDependency

router = APIRouter()


@router.post("/v1/reload", responses=UNAVAILABLE | documented(HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY))
async def reload(reloader: ReloaderDependency) -> Reloaded:
    """Read the site file and the API keys again, and apply what changed. It does what SIGHUP does."""
    return await reloader.reload()
