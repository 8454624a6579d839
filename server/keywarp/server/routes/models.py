"""The routes of models: what there are, and to load and unload them; under `/v1`, and as Triton's repository."""

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, JsonValue, ValidationError

from keywarp.protocol import ModelInfo
from keywarp.server.errors import BadMessageError, ForbiddenError
from keywarp.server.models.registry import ModelState
from keywarp.server.problems import documented
from keywarp.server.routes.bodies import read_body
from keywarp.server.routes.dependencies import NOT_FOUND, UNAVAILABLE, Serving

FORBIDDEN = documented(HTTPStatus.FORBIDDEN)
BAD_REQUEST = documented(HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
TRITON_STATES: Final = {
    ModelState.READY: "READY",
    ModelState.LOADING: "LOADING",
    ModelState.DRAINING: "UNLOADING",
    ModelState.FAILED: "UNAVAILABLE",
    ModelState.UNLOADED: "UNAVAILABLE",
}


def _controlled(service: Serving) -> None:
    """Keys were checked before; without any, the operator must have allowed it."""
    if not service.settings.controlled:
        raise ForbiddenError(
            "this server's models stay as they are: start it with --model-control, or with keys of the scope `models`"
        )


CONTROLLED = [Depends(_controlled)]
Force = Annotated[bool, Query(description="Close the model's streams instead of letting them go on.")]

# -- /v1 ---------------------------------------------------------------------------------------------------------------

router = APIRouter(prefix="/v1/models")


@router.get("", responses=UNAVAILABLE)
async def list_models(service: Serving) -> list[ModelInfo]:
    """The models that are loaded, are being loaded, couldn't be, or are unloaded while streams of them go on."""
    return service.models.infos()


@router.get("/{name}", responses=NOT_FOUND)
async def show_model(name: str, service: Serving) -> ModelInfo:
    """One of them."""
    return service.models.info(name)


@router.post("/{name}/load", responses=NOT_FOUND | FORBIDDEN, dependencies=CONTROLLED)
async def load_model(name: str, service: Serving) -> ModelInfo:
    """Load a bundle of the models folder, or load it anew; answered when it is compiled and has run once.

    Streams go on meanwhile, and afterwards with the version that they began with.
    """
    with service.conversation():
        return await service.models.load(name)


@router.post("/{name}/unload", responses=NOT_FOUND | FORBIDDEN, dependencies=CONTROLLED)
async def unload_model(name: str, service: Serving, force: Force = False) -> ModelInfo:
    """Give a model to no more streams. Those that have it go on to their end, or with `force` are closed (4410)."""
    return await service.models.unload(name, force=force)


# -- /v2 ---------------------------------------------------------------------------------------------------------------

repository = APIRouter(prefix="/v2/repository", tags=["Open Inference Protocol"])


class RepositoryRequest(BaseModel):
    """The body of all of Triton's repository requests; other members are ignored."""

    ready: bool = False  # the index: of the models that are ready only
    parameters: dict[str, JsonValue] = {}


async def _asked(request: Request, service: Serving) -> RepositoryRequest:
    body = await read_body(request, service.settings.max_message_bytes)
    try:
        return RepositoryRequest.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise BadMessageError(f"the body is no repository request: {error.errors()[0]['msg']}") from error


Asked = Annotated[RepositoryRequest, Depends(_asked)]


@repository.post("/index", responses=UNAVAILABLE | BAD_REQUEST)
async def repository_index(asked: Asked, service: Serving) -> list[dict[str, str]]:
    """The models, and what else the models folder holds."""
    entries = [_entry(info) for info in await service.models.index()]
    return [entry for entry in entries if entry["state"] == "READY" or not asked.ready]


@repository.post("/models/{name}/load", responses=NOT_FOUND | FORBIDDEN | BAD_REQUEST, dependencies=CONTROLLED)
async def load_from_repository(name: str, asked: Asked, service: Serving) -> dict[str, Any]:
    """Load a model, or load it anew, as `POST /v1/models/{name}/load`."""
    if asked.parameters:
        raise BadMessageError("models are loaded as they are in the server's folder: `config` and files aren't taken")
    await load_model(name, service)
    return {}


@repository.post(
    "/models/{name}/unload",
    responses=NOT_FOUND | FORBIDDEN | BAD_REQUEST,
    dependencies=CONTROLLED,
    response_class=Response,
)
async def unload_from_repository(name: str, service: Serving, force: Force = False) -> Response:
    """Unload a model, as `POST /v1/models/{name}/unload`."""
    await service.models.unload(name, force=force)
    return Response()


def _entry(info: ModelInfo) -> dict[str, str]:
    state = ModelState(info.state)
    reason = info.reason or {
        ModelState.UNLOADED: "unloaded",
        ModelState.DRAINING: f"{info.draining} streams go on",
    }.get(state, "")
    return {"name": info.name, "version": info.version, "state": TRITON_STATES[state], "reason": reason}
