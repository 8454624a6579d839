"""The HTTP and WebSocket routes."""

import asyncio
import time
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response, WebSocket
from pydantic import TypeAdapter, ValidationError

from keywarp.protocol import SUBPROTOCOL, CreateStream, FrameHeader, Result, StreamInfo
from keywarp.protocol.messages import StreamId
from keywarp.server.decode.frames import Picture
from keywarp.server.decode.images import decode_image
from keywarp.server.decode.sources import Source
from keywarp.server.errors import BadMessageError, FrameRefusedError, ServerError
from keywarp.server.problems import documented, problem_response
from keywarp.server.routes.bodies import read_body, refuse_length
from keywarp.server.routes.dependencies import NOT_FOUND, UNAVAILABLE, Pulling, Quoted, Serving
from keywarp.server.routes.videos import MEDIA_TYPES, NDJSON, VideoOptions, VideoResponse, codec_of
from keywarp.server.routes.websocket import Conversation

router = APIRouter()
_stream_id = TypeAdapter[str](StreamId)
Id = Annotated[StreamId, Path(description="The stream's id.")]

REFUSED = documented(HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
NOT_PULLED = NOT_FOUND | documented(HTTPStatus.CONFLICT)
BAD_VIDEO = documented(HTTPStatus.GONE, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
BAD_FRAME = documented(
    HTTPStatus.CONFLICT,
    HTTPStatus.GONE,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.TOO_MANY_REQUESTS,
)

# -- the server itself -------------------------------------------------------------------------------------------------


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether the process lives."""
    return {"status": "ok"}


@router.get("/readyz", responses=UNAVAILABLE | documented(HTTPStatus.INTERNAL_SERVER_ERROR))
async def readyz(service: Serving) -> dict[str, str]:
    """Whether streams can be created: the models are loaded and warm, and the server doesn't stop."""
    service.refuse_if_draining()
    _ = service.models
    return {"status": "ready"}


@router.get("/metrics", response_class=Response)
async def metrics(service: Serving) -> Response:
    """Prometheus metrics."""
    return Response(service.metrics.exposition(), media_type=service.metrics.content_type)


# -- streams -----------------------------------------------------------------------------------------------------------


@router.post(
    "/v1/streams", status_code=HTTPStatus.CREATED, responses=NOT_FOUND | REFUSED | documented(HTTPStatus.FORBIDDEN)
)
async def create_stream(
    request: CreateStream, service: Serving, pulls: Pulling, quota: Quoted, response: Response
) -> StreamInfo:
    """Create a stream, for single frames or for a WebSocket connection, which expires when idle; or pull one."""
    if request.source is None:
        stream = service.create_stream(request, request.id, quota)
    else:
        source = Source.parse(request.source)
        await pulls.check(source)
        stream = service.create_stream(source.suited(request), request.id, quota)
        pulls.start(stream, source)
    response.headers["Location"] = f"/v1/streams/{stream.id}"
    return stream.info


@router.get("/v1/streams")
async def list_streams(service: Serving) -> list[StreamInfo]:
    """All streams."""
    return [stream.info for stream in service.streams]


@router.get("/v1/streams/{stream_id}", responses=NOT_FOUND)
async def show_stream(stream_id: Id, service: Serving) -> StreamInfo:
    """One stream."""
    return service.streams[stream_id].info


@router.delete("/v1/streams/{stream_id}", status_code=HTTPStatus.NO_CONTENT, responses=NOT_FOUND)
async def delete_stream(stream_id: Id, service: Serving) -> None:
    """Delete a stream; a connection that feeds it is closed."""
    await service.streams.remove(service.streams[stream_id], f"stream {stream_id!r} was deleted")


@router.post("/v1/streams/{stream_id}/pause", responses=NOT_PULLED)
async def pause_stream(stream_id: Id, service: Serving, pulls: Pulling) -> StreamInfo:
    """Let go of a pulled stream's source; the stream stays."""
    stream = service.streams[stream_id]
    pulls[stream].pause()
    return stream.info


@router.post("/v1/streams/{stream_id}/resume", responses=NOT_PULLED)
async def resume_stream(stream_id: Id, service: Serving, pulls: Pulling) -> StreamInfo:
    """Pull a stream's source again."""
    stream = service.streams[stream_id]
    pulls[stream].resume()
    return stream.info


@router.post(
    "/v1/streams/{stream_id}/frames",
    responses=NOT_FOUND | BAD_FRAME,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                t: {"schema": {"type": "string", "format": "binary"}} for t in ("image/jpeg", "image/png", "image/webp")
            },
        }
    },
)
async def process_frame(
    stream_id: Id, header: Annotated[FrameHeader, Query()], request: Request, service: Serving, quota: Quoted
) -> Result:
    """Process one JPEG, PNG or WebP image as the stream's next frame."""
    service.refuse_if_draining()
    stream = service.streams[stream_id]
    quota.charge()
    body = await read_body(request, service.settings.max_message_bytes)
    async with stream.single_frame():
        with service.conversation():
            started = time.perf_counter()
            try:
                pixels = await asyncio.get_running_loop().run_in_executor(
                    service.pool, decode_image, body, service.settings.max_pixels
                )
            except FrameRefusedError as error:
                stream.audience.tell(stream.skip(error, header.id))
                raise
            picture = Picture(pixels, header.id, header.timestamp, time.perf_counter() - started)
            return await stream.result(await stream.submit(picture))


@router.post(
    "/v1/videos",
    status_code=HTTPStatus.OK,
    response_class=VideoResponse,
    responses=NOT_FOUND
    | REFUSED
    | BAD_VIDEO
    | {
        int(HTTPStatus.OK): {
            "description": "The results while the video comes in, one JSON object a line: `result` or `error` for each "
            "frame, at last `done`, or `error` with `fatal`.",
            "content": {NDJSON: {"schema": {"type": "string"}}},
        }
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {t: {"schema": {"type": "string", "format": "binary"}} for t in MEDIA_TYPES},
        }
    },
)
async def process_video(
    options: Annotated[VideoOptions, Query()], request: Request, service: Serving, quota: Quoted
) -> VideoResponse:
    """Process a video while it is being uploaded, as a stream of its own. Read the results while you send."""
    codec = codec_of(options, request.headers.get("content-type", ""))
    refuse_length(request, service.settings.max_video_bytes)
    return VideoResponse(request, service, service.create_stream(options, options.id, quota), codec)


@router.websocket("/v1/streams/{stream_id}/ws")
async def converse(websocket: WebSocket, stream_id: str, service: Serving, quota: Quoted) -> None:
    """The protocol `keywarp.v1`: see `keywarp.protocol.messages`."""
    try:
        if SUBPROTOCOL not in websocket.scope["subprotocols"]:
            raise BadMessageError(f"the WebSocket subprotocol must be {SUBPROTOCOL!r}")
        try:
            _stream_id.validate_python(stream_id)
        except ValidationError as error:
            raise BadMessageError(f"not a stream id: {error.errors()[0]['msg']}") from error
        service.refuse_if_draining()
    except ServerError as error:
        await websocket.send_denial_response(problem_response(error.problem, websocket.url.path))
        return
    await websocket.accept(SUBPROTOCOL)
    await Conversation(websocket, service, quota).run(stream_id)
