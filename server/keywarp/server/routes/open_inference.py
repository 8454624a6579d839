"""The routes of the Open Inference Protocol, version 2, under `/v2`. One sequence is one stream.

The protocol is https://github.com/kserve/open-inference-protocol, with those extensions of Triton that its clients use:
binary tensors, sequences, model configuration, statistics, repository index.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from numpy.typing import NDArray

from keywarp.engines import DenseMap, Detections, Engine, FrameResult
from keywarp.engines.errors import InvalidFrameError
from keywarp.engines.manifest import DenseDetection, Manifest
from keywarp.engines.preparation import check_frame
from keywarp.images import TooManyPixelsError
from keywarp.protocol import FrameHeader
from keywarp.server.decode.frames import DecodedFrame
from keywarp.server.decode.images import decode_frame
from keywarp.server.errors import (
    BadMessageError,
    ImageRefusedError,
    UnsupportedMediaError,
)
from keywarp.server.openapi import OPEN_INFERENCE
from keywarp.server.problems import documented
from keywarp.server.routes.dependencies import (
    NOT_FOUND,
    UNAVAILABLE,
    QuotaDependency,
    SequencesDependency,
    ServiceDependency,
)
from keywarp.server.routes.request_body import read_body
from keywarp.server.routes.sequences import SequencePosition, major, refuse_other_version
from keywarp.server.routes.tensors import format_response, parse_request, wanted_outputs
from keywarp.server.service import Service

EXTENSIONS: Final = ("binary_tensor_data", "model_configuration", "model_repository", "sequence", "statistics")
HEADER_LENGTH: Final = "Inference-Header-Content-Length"
# Name, datatype and shape; -1 stands for any size.
INPUTS: Final = (("image", "BYTES", (1,)), ("frame", "UINT8", (-1, -1, 3)))
OUTPUTS: Final = {
    "segmentation": (("labels", "UINT8", (-1, -1)),),
    "detection": (("boxes", "FP32", (-1, 4)), ("scores", "FP32", (-1,)), ("classes", "INT32", (-1,))),
    "dense": (("values", "FP32", (-1, -1)),),
}
# As large as all other outputs together, many times over; so they are sent only to those who ask for them by name.
MASKS: Final = ("masks", "BOOL", (-1, -1, -1))

router = APIRouter(prefix="/v2", tags=[OPEN_INFERENCE])


REFUSED = documented(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.GONE,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
)


def _engine(name: str, service: ServiceDependency, model_version: str | None = None) -> Engine:
    """Find the model that a path names, and check the version if the path names one."""
    engine = service.models[name]
    refuse_other_version(engine, model_version)
    return engine


Model = Annotated[Engine, Depends(_engine)]

# -- the server --------------------------------------------------------------------------------------------------------


@router.get("")
async def server_metadata() -> dict[str, Any]:
    """Describe this server."""
    return {"name": "keywarp", "version": version("keywarp"), "extensions": EXTENSIONS}


@router.get("/health/live", response_class=Response)
async def live() -> Response:
    """Tell that the process lives."""
    return Response()


@router.get("/health/ready", responses=UNAVAILABLE, response_class=Response)
async def ready(service: ServiceDependency) -> Response:
    """Tell whether sequences can be started."""
    service.check_ready()
    return Response()


@router.get("/models/stats", responses=UNAVAILABLE)
async def all_statistics(service: ServiceDependency) -> dict[str, Any]:
    """Return the statistics of all models."""
    return {"model_stats": [_statistics(engine, service) for engine in service.models]}


# -- a model -----------------------------------------------------------------------------------------------------------


@router.get("/models/{name}", responses=NOT_FOUND)
@router.get("/models/{name}/versions/{model_version}", responses=NOT_FOUND)
async def model_metadata(engine: Model) -> dict[str, Any]:
    """Describe a model's inputs, of which each request has exactly one, and its outputs."""
    manifest = engine.bundle.manifest
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": f"keywarp_{engine.backend.name}",
        "inputs": [_tensor(*tensor) for tensor in INPUTS],
        "outputs": [_tensor(*tensor) for tensor in _listed_outputs(manifest)],
    }


@router.get("/models/{name}/ready", responses=NOT_FOUND, response_class=Response)
@router.get("/models/{name}/versions/{model_version}/ready", responses=NOT_FOUND, response_class=Response)
async def model_ready(engine: Model) -> Response:  # noqa: ARG001 - a model that is found is ready
    """Tell that a model is ready."""
    return Response()


@router.get("/models/{name}/config", responses=NOT_FOUND)
@router.get("/models/{name}/versions/{model_version}/config", responses=NOT_FOUND)
async def model_config(engine: Model, service: ServiceDependency) -> dict[str, Any]:
    """Describe a model in the form of Triton's configurations."""
    manifest = engine.bundle.manifest
    return {
        "name": manifest.name,
        "platform": f"keywarp_{engine.backend.name}",
        "backend": "keywarp",
        "max_batch_size": 0,
        "input": [{**_configured(*tensor), "optional": True} for tensor in INPUTS],
        "output": [_configured(*tensor) for tensor in _listed_outputs(manifest)],
        "sequence_batching": {"max_sequence_idle_microseconds": int(1e6 * service.settings.idle_timeout)},
        "parameters": {"key_interval": {"string_value": str(manifest.key_interval)}},
    }


@router.get("/models/{name}/stats", responses=NOT_FOUND)
@router.get("/models/{name}/versions/{model_version}/stats", responses=NOT_FOUND)
async def model_statistics(engine: Model, service: ServiceDependency) -> dict[str, Any]:
    """Return a model's statistics over all protocols."""
    return {"model_stats": [_statistics(engine, service)]}


@router.post("/models/{name}/infer", responses=NOT_FOUND | REFUSED)
@router.post("/models/{name}/versions/{model_version}/infer", responses=NOT_FOUND | REFUSED)
async def infer(
    name: str,
    request: Request,
    service: ServiceDependency,
    sequences: SequencesDependency,
    quota: QuotaDependency,
    model_version: str | None = None,
) -> Response:
    """Process one frame: `image` is a JPEG, PNG or WebP file, `frame` holds RGB pixels (H, W, 3).

    The parameters `sequence_id`, `sequence_start` and `sequence_end` make the frame part of a stream; `interval`,
    `schedule`, `max_interval`, `max_age` and `overlap` next to `sequence_start` place its key frames, and `upright`
    says whether images are turned as EXIF says. A sequence keeps the model version that it started with.
    """
    service.refuse_if_draining()
    quota.charge()
    if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
        raise UnsupportedMediaError(f"the content encoding {encoding[:20]!r} isn't supported: send the body as it is")
    body = await read_body(request, service.settings.max_message_bytes, service.payload_memory)
    in_pool = partial(asyncio.get_running_loop().run_in_executor, service.pool)
    inference, tensors = await in_pool(parse_request, body, request.headers.get(HEADER_LENGTH))
    position = SequencePosition.of(inference.parameters)
    with service.in_flight():
        engine = sequences.engine(name, position, model_version)
        manifest = engine.bundle.manifest
        names = [name for name, *_ in _listed_outputs(manifest)]
        if inference.outputs is None and MASKS[0] in names:
            names.remove(MASKS[0])
        wanted = wanted_outputs(inference, names)
        async with sequences.stream(manifest.name, position, inference.parameters, quota) as stream:
            found = await stream.infer(partial(_decode, tensors, service.settings.max_pixels, upright=stream.upright))
    parameters = {
        "kind": found.kind.value,
        "key_age": found.key_age,
        "key_age_seconds": found.key_age_seconds,
        "frame": found.index,
    }
    if position.id is not None:
        parameters |= {
            "sequence_id": position.id,
            "sequence_start": position.start,
            "sequence_end": position.end,
        }
    head = {"model_name": manifest.name, "model_version": manifest.version, "parameters": parameters}
    content, length = format_response(
        head | ({"id": inference.id} if inference.id else {}), _outputs(found, wanted), wanted
    )
    if length is None:
        return Response(content, media_type="application/json")
    return Response(content, media_type="application/octet-stream", headers={HEADER_LENGTH: str(length)})


def _decode(tensors: Mapping[str, NDArray[Any] | bytes], max_pixels: int, *, upright: bool) -> DecodedFrame:
    """Decode the frame of a request.

    Raises:
        BadMessageError: There isn't exactly one input, or it has the wrong type or shape.
        ImageRefusedError: The frame is too large, or isn't an image.
    """
    if len(tensors) != 1 or not tensors.keys() <= {"image", "frame"}:
        raise BadMessageError("a request has exactly one input: `image` or `frame`")
    [(name, tensor)] = tensors.items()
    if isinstance(tensor, bytes):
        if name != "image":
            raise BadMessageError("`frame` must be UINT8, not BYTES")
        return decode_frame(FrameHeader(), tensor, max_pixels, upright=upright)
    if name != "frame":
        raise BadMessageError("`image` must be BYTES: a whole JPEG, PNG or WebP file")
    started = time.perf_counter()
    pixels = tensor[0] if tensor.ndim == 4 and len(tensor) == 1 else tensor
    try:
        check_frame(pixels)
    except InvalidFrameError as error:
        raise BadMessageError(f"`frame`: {error}") from error
    if pixels.shape[0] * pixels.shape[1] > max_pixels:
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise ImageRefusedError(TooManyPixelsError(f"the frame is {size}; at most {max_pixels} pixels are allowed"))
    return DecodedFrame(np.ascontiguousarray(pixels), None, None, time.perf_counter() - started)


def _outputs(found: FrameResult, wanted: Collection[str]) -> dict[str, NDArray[Any]]:
    if isinstance(found.output, Detections):
        objects = found.output
        tensors = {"boxes": objects.xyxy, "scores": objects.confidence, "classes": objects.class_id.astype("<i4")}
        if objects.keypoints is not None:
            tensors["keypoints"] = objects.keypoints
        if objects.masks is not None and MASKS[0] in wanted:
            tensors[MASKS[0]] = objects.masks.whole()
        return tensors
    if isinstance(found.output, DenseMap):
        return {"values": found.output.values}
    return {"labels": found.output.labels}


def _listed_outputs(manifest: Manifest) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Return a model's outputs: name, datatype and shape; -1 stands for any size."""
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...] = OUTPUTS[manifest.task]
    if isinstance(manifest.detection, DenseDetection):
        keypoints = manifest.detection.keypoints
        outputs += (("keypoints", "FP32", (-1, len(keypoints.names), 3)),) if keypoints else ()
        outputs += (MASKS,) if manifest.detection.masks else ()
    return outputs


def _tensor(name: str, datatype: str, shape: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}


def _configured(name: str, datatype: str, shape: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "data_type": f"TYPE_{'STRING' if datatype == 'BYTES' else datatype}", "dims": shape}


def _statistics(engine: Engine, service: Service) -> dict[str, Any]:
    manifest, totals = engine.bundle.manifest, service.metrics.totals[engine.bundle.name]

    def spent(*stages: str, count: int = totals.frames) -> dict[str, int]:
        return {"count": count, "ns": round(1e9 * sum(totals.seconds[stage] for stage in stages))}

    # Each frame is one execution.
    parts = {
        "compute_input": spent("decode"),
        "compute_infer": spent("inference"),
        "compute_output": spent("postprocess"),
    }
    return {
        "name": manifest.name,
        "version": major(manifest.version),  # perf_analyzer looks for a whole number
        "bundle_version": manifest.version,
        "last_inference": round(1e3 * totals.last),
        "inference_count": totals.frames,
        "execution_count": totals.frames,
        "inference_stats": {
            "success": spent("queue", "decode", "inference", "postprocess"),
            "fail": spent(count=totals.errors),
            "queue": spent("queue"),
            **parts,
            "cache_hit": spent(count=0),
            "cache_miss": spent(count=0),
        },
        "batch_stats": [{"batch_size": 1, **parts}] if totals.frames else [],
    }
