"""The routes of models: list, show, load, unload. They exist under `/v1`, and as Triton's model repository."""

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, JsonValue, ValidationError

from keywarp.protocol import ModelInfo, faults
from keywarp.server.errors import BadMessageError, ForbiddenError
from keywarp.server.models.registry import ModelState
from keywarp.server.openapi import OPEN_INFERENCE
from keywarp.server.problems import documented
from keywarp.server.routes.dependencies import NOT_FOUND, UNAVAILABLE, ServiceDependency
from keywarp.server.routes.request_body import read_body

FORBIDDEN = documented(HTTPStatus.FORBIDDEN)
BAD_REQUEST = documented(HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
TRITON_STATES: Final = {
    ModelState.READY: "READY",
    ModelState.LOADING: "LOADING",
    ModelState.DRAINING: "UNLOADING",
    ModelState.FAILED: "UNAVAILABLE",
    ModelState.UNLOADED: "UNAVAILABLE",
}


def _refuse_if_fixed(service: ServiceDependency) -> None:
    """Check that models may be loaded. The middleware has checked API keys; without keys the operator must allow it."""
    if not service.settings.controlled:
        raise ForbiddenError(
            "this server doesn't load or unload models: start it with --model-control, or with API keys that have "
            "the scope `models`"
        )


CONTROLLED = [Depends(_refuse_if_fixed)]
Force = Annotated[bool, Query(description="Close the model's streams instead of letting them continue.")]

# -- /v1 ---------------------------------------------------------------------------------------------------------------

router = APIRouter(prefix="/v1/models")


@router.get("", responses=UNAVAILABLE)
async def list_models(service: ServiceDependency) -> list[ModelInfo]:
    """List the models that are loaded, loading, failed to load, or draining."""
    return service.models.infos()


@router.get("/{name}", responses=NOT_FOUND)
async def show_model(name: str, service: ServiceDependency) -> ModelInfo:
    """Show one model."""
    return service.models.info(name)


@router.post("/{name}/load", responses=NOT_FOUND | FORBIDDEN, dependencies=CONTROLLED)
async def load_model(name: str, service: ServiceDependency) -> ModelInfo:
    """Load a bundle from the models folder, or reload it. The response comes when it is compiled and has run once.

    Existing streams continue with the version that they started with.
    """
    with service.in_flight():
        return await service.models.load(name)


@router.post("/{name}/unload", responses=NOT_FOUND | FORBIDDEN, dependencies=CONTROLLED)
async def unload_model(name: str, service: ServiceDependency, force: Force = False) -> ModelInfo:
    """Give a model to no new streams. Existing ones continue, or are closed if `force` is set (4410)."""
    return await service.models.unload(name, force=force)


# -- /v2 ---------------------------------------------------------------------------------------------------------------

repository = APIRouter(prefix="/v2/repository", tags=[OPEN_INFERENCE])


class RepositoryRequest(BaseModel):
    """The body of Triton's repository requests. Other members are ignored."""

    ready: bool = False  # the index lists only models that are ready
    parameters: dict[str, JsonValue] = {}


async def _repository_request(request: Request, service: ServiceDependency) -> RepositoryRequest:
    body = await read_body(request, service.settings.max_message_bytes, service.payload_memory)
    try:
        return RepositoryRequest.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise BadMessageError(f"the body isn't a repository request: {faults.describe(error)}") from error


RepositoryBody = Annotated[RepositoryRequest, Depends(_repository_request)]


@repository.post("/index", responses=UNAVAILABLE | BAD_REQUEST)
async def repository_index(body: RepositoryBody, service: ServiceDependency) -> list[dict[str, str]]:
    """List the models, and the bundles in the models folder that aren't loaded."""
    entries = [_entry(info) for info in await service.models.index()]
    return [entry for entry in entries if entry["state"] == "READY" or not body.ready]


@repository.post("/models/{name}/load", responses=NOT_FOUND | FORBIDDEN | BAD_REQUEST, dependencies=CONTROLLED)
async def load_from_repository(name: str, body: RepositoryBody, service: ServiceDependency) -> dict[str, Any]:
    """Load or reload a model, like `POST /v1/models/{name}/load`."""
    if body.parameters:
        raise BadMessageError(
            "models are loaded as they are in the server's folder: `config` and files aren't supported"
        )
    await load_model(name, service)
    return {}


@repository.post(
    "/models/{name}/unload",
    responses=NOT_FOUND | FORBIDDEN | BAD_REQUEST,
    dependencies=CONTROLLED,
    response_class=Response,
)
async def unload_from_repository(name: str, service: ServiceDependency, force: Force = False) -> Response:
    """Unload a model, like `POST /v1/models/{name}/unload`."""
    await service.models.unload(name, force=force)
    return Response()


def _entry(info: ModelInfo) -> dict[str, str]:
    state = ModelState(info.state)
    reason = info.reason or {
        ModelState.UNLOADED: "unloaded",
        ModelState.DRAINING: f"{info.draining} streams continue",
    }.get(state, "")
    return {"name": info.name, "version": info.version, "state": TRITON_STATES[state], "reason": reason}
