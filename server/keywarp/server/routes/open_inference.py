"""The Open Inference Protocol, version 2, under `/v2`: one sequence is one stream.

https://github.com/kserve/open-inference-protocol, with the extensions of Triton that its clients use: binary tensors,
sequences, model configuration, statistics, repository index.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from numpy.typing import NDArray

from keywarp.engines import Detections, Engine, FrameResult
from keywarp.engines.errors import InvalidFrameError
from keywarp.engines.preparation import check_frame
from keywarp.protocol import Timings
from keywarp.server.decode.frames import Picture
from keywarp.server.decode.images import decode_image
from keywarp.server.errors import (
    BadMessageError,
    FrameRefusedError,
    TooManyPixelsError,
    UnsupportedMediaError,
)
from keywarp.server.problems import documented
from keywarp.server.routes.bodies import read_body
from keywarp.server.routes.dependencies import NOT_FOUND, UNAVAILABLE, Quoted, Serving, Turns
from keywarp.server.routes.sequences import Turn, refuse_other_version
from keywarp.server.routes.tensors import format_response, parse_request, wanted_outputs
from keywarp.server.service import Service

EXTENSIONS: Final = ("binary_tensor_data", "model_configuration", "model_repository", "sequence", "statistics")
HEADER_LENGTH: Final = "Inference-Header-Content-Length"
# name, datatype, shape; -1: any
INPUTS: Final = (("image", "BYTES", (1,)), ("frame", "UINT8", (-1, -1, 3)))
OUTPUTS: Final = {
    "segmentation": (("labels", "UINT8", (-1, -1)),),
    "detection": (("boxes", "FP32", (-1, 4)), ("scores", "FP32", (-1,)), ("classes", "INT32", (-1,))),
}

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])


REFUSED = documented(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.GONE,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
)


def _engine(name: str, service: Serving, model_version: str | None = None) -> Engine:
    """The model that a path names, maybe with its version."""
    engine = service.models[name]
    refuse_other_version(engine, model_version)
    return engine


Model = Annotated[Engine, Depends(_engine)]

# -- the server --------------------------------------------------------------------------------------------------------


@router.get("")
async def server_metadata() -> dict[str, Any]:
    """What this server is."""
    return {"name": "keywarp", "version": version("keywarp"), "extensions": EXTENSIONS}


@router.get("/health/live", response_class=Response)
async def live() -> Response:
    """Whether the process lives."""
    return Response()


@router.get("/health/ready", responses=UNAVAILABLE, response_class=Response)
async def ready(service: Serving) -> Response:
    """Whether sequences can be started."""
    service.refuse_if_draining()
    _ = service.models
    return Response()


@router.get("/models/stats", responses=UNAVAILABLE)
async def all_statistics(service: Serving) -> dict[str, Any]:
    """What all models have done."""
    return {"model_stats": [_statistics(engine, service) for engine in service.models]}


# -- a model -----------------------------------------------------------------------------------------------------------


@router.get("/models/{name}", responses=NOT_FOUND)
@router.get("/models/{name}/versions/{model_version}", responses=NOT_FOUND)
async def model_metadata(engine: Model) -> dict[str, Any]:
    """A model's inputs, of which each request has one, and outputs."""
    manifest = engine.bundle.manifest
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": f"keywarp_{engine.backend.name}",
        "inputs": [_tensor(*tensor) for tensor in INPUTS],
        "outputs": [_tensor(*tensor) for tensor in OUTPUTS[manifest.task]],
    }


@router.get("/models/{name}/ready", responses=NOT_FOUND, response_class=Response)
@router.get("/models/{name}/versions/{model_version}/ready", responses=NOT_FOUND, response_class=Response)
async def model_ready(engine: Model) -> Response:  # noqa: ARG001 - it's found, so it is ready
    """Whether a model is there."""
    return Response()


@router.get("/models/{name}/config", responses=NOT_FOUND)
@router.get("/models/{name}/versions/{model_version}/config", responses=NOT_FOUND)
async def model_config(engine: Model, service: Serving) -> dict[str, Any]:
    """A model as Triton's configurations describe it."""
    manifest = engine.bundle.manifest
    return {
        "name": manifest.name,
        "platform": f"keywarp_{engine.backend.name}",
        "backend": "keywarp",
        "max_batch_size": 0,
        "input": [{**_configured(*tensor), "optional": True} for tensor in INPUTS],
        "output": [_configured(*tensor) for tensor in OUTPUTS[manifest.task]],
        "sequence_batching": {"max_sequence_idle_microseconds": int(1e6 * service.settings.idle_timeout)},
        "parameters": {"key_interval": {"string_value": str(manifest.key_interval)}},
    }


@router.get("/models/{name}/stats", responses=NOT_FOUND)
@router.get("/models/{name}/versions/{model_version}/stats", responses=NOT_FOUND)
async def model_statistics(engine: Model, service: Serving) -> dict[str, Any]:
    """What a model has done, over all protocols."""
    return {"model_stats": [_statistics(engine, service)]}


@router.post("/models/{name}/infer", responses=NOT_FOUND | REFUSED)
@router.post("/models/{name}/versions/{model_version}/infer", responses=NOT_FOUND | REFUSED)
async def infer(
    name: str, request: Request, service: Serving, sequences: Turns, quota: Quoted, model_version: str | None = None
) -> Response:
    """Process one frame: `image`, a JPEG, PNG or WebP, or `frame`, its pixels, RGB (H, W, 3).

    Parameters `sequence_id`, `sequence_start` and `sequence_end` make it a stream's; `interval`, `schedule` and
    `max_interval` beside `sequence_start` place its key frames. A sequence keeps the version that it started with.
    """
    service.refuse_if_draining()
    quota.charge()
    if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
        raise UnsupportedMediaError(f"bodies that are encoded ({encoding[:20]}) aren't taken")
    body = await read_body(request, service.settings.max_message_bytes)
    in_pool = partial(asyncio.get_running_loop().run_in_executor, service.pool)
    asked, tensors = await in_pool(parse_request, body, request.headers.get(HEADER_LENGTH))
    turn = Turn.of(asked.parameters)
    with service.conversation():
        engine = sequences.engine(name, turn, model_version)
        manifest = engine.bundle.manifest
        wanted = wanted_outputs(asked, [name for name, *_ in OUTPUTS[manifest.task]])
        async with sequences.stream(manifest.name, turn, asked.parameters, quota) as stream, stream.single_frame():
            started = time.perf_counter()
            try:
                pixels = await in_pool(_pixels, tensors, service.settings.max_pixels)
            except FrameRefusedError as error:
                stream.audience.tell(stream.skip(error, None))
                raise
            picture = Picture(pixels, None, None, time.perf_counter() - started)
            pending = await stream.submit(picture)
            found = await stream.outcome(pending)
            stream.count(
                found,
                Timings(
                    decode=picture.decode,
                    queue=pending.waited + found.queue,
                    inference=found.inference,
                    postprocess=found.postprocess,
                ),
            )
            if stream.audience.listens:
                stream.audience.tell(await stream.encode(pending, found))
    parameters = {"kind": found.kind.value, "key_age": found.key_age, "frame": found.index}
    if turn.id is not None:
        parameters |= {"sequence_id": turn.id, "sequence_start": turn.start, "sequence_end": turn.end}
    head = {"model_name": manifest.name, "model_version": manifest.version, "parameters": parameters}
    content, length = format_response(head | ({"id": asked.id} if asked.id else {}), _outputs(found), wanted)
    if length is None:
        return Response(content, media_type="application/json")
    return Response(content, media_type="application/octet-stream", headers={HEADER_LENGTH: str(length)})


def _pixels(tensors: Mapping[str, NDArray[Any] | bytes], max_pixels: int) -> NDArray[np.uint8]:
    """The frame of a request.

    Raises:
        BadMessageError: There isn't just one, or it isn't of its type and shape.
        FrameRefusedError: It's too large, or no image.
    """
    if len(tensors) != 1 or not tensors.keys() <= {"image", "frame"}:
        raise BadMessageError("a request has one input: `image` or `frame`")
    [(name, tensor)] = tensors.items()
    if isinstance(tensor, bytes):
        if name != "image":
            raise BadMessageError("`frame` is UINT8, not BYTES")
        return decode_image(tensor, max_pixels)
    if name != "frame":
        raise BadMessageError("`image` is BYTES: a whole JPEG, PNG or WebP")
    pixels = tensor[0] if tensor.ndim == 4 and len(tensor) == 1 else tensor
    try:
        check_frame(pixels)
    except InvalidFrameError as error:
        raise BadMessageError(f"`frame`: {error}") from error
    if pixels.shape[0] * pixels.shape[1] > max_pixels:
        raise TooManyPixelsError(
            f"the frame is {pixels.shape[1]}x{pixels.shape[0]}; at most {max_pixels} pixels are allowed"
        )
    return np.ascontiguousarray(pixels)


def _outputs(found: FrameResult) -> dict[str, NDArray[Any]]:
    if isinstance(found.output, Detections):
        objects = found.output
        return {"boxes": objects.xyxy, "scores": objects.confidence, "classes": objects.class_id.astype("<i4")}
    return {"labels": found.output.labels}


def _tensor(name: str, datatype: str, shape: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}


def _configured(name: str, datatype: str, shape: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "data_type": f"TYPE_{'STRING' if datatype == 'BYTES' else datatype}", "dims": shape}


def _statistics(engine: Engine, service: Service) -> dict[str, Any]:
    manifest, totals = engine.bundle.manifest, service.metrics.totals[engine.bundle.name]

    def spent(*stages: str, count: int = totals.frames) -> dict[str, int]:
        return {"count": count, "ns": round(1e9 * sum(totals.seconds[stage] for stage in stages))}

    return {
        "name": manifest.name,
        "version": manifest.version,
        "last_inference": round(1e3 * totals.last),
        "inference_count": totals.frames,
        "execution_count": totals.frames,
        "inference_stats": {
            "success": spent("queue", "decode", "inference", "postprocess"),
            "fail": spent(count=totals.errors),
            "queue": spent("queue"),
            "compute_input": spent("decode"),
            "compute_infer": spent("inference"),
            "compute_output": spent("postprocess"),
            "cache_hit": spent(count=0),
            "cache_miss": spent(count=0),
        },
        "batch_stats": [],
    }
