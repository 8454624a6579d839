"""The routes of streams: create, list, show, delete, pause, and process single frames."""

from functools import partial
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from keywarp.protocol import ChangeStream, CreateStream, FrameHeader, Result, StreamInfo
from keywarp.protocol.events import Rules
from keywarp.protocol.messages import StreamId
from keywarp.server.decode.images import decode_frame
from keywarp.server.errors import BadMessageError
from keywarp.server.fleet import SERVER_HEADER
from keywarp.server.problems import documented
from keywarp.server.routes.dependencies import (
    CANNOT_CREATE,
    NOT_FOUND,
    CamerasDependency,
    QuotaDependency,
    ServiceDependency,
)
from keywarp.server.routes.request_body import read_body

router = APIRouter(prefix="/v1/streams")
Id = Annotated[StreamId, Path(description="The stream's id.")]

NOT_PULLED = NOT_FOUND | documented(HTTPStatus.CONFLICT)
BAD_FRAME = documented(
    HTTPStatus.CONFLICT,
    HTTPStatus.GONE,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.TOO_MANY_REQUESTS,
)
IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}}
            for media_type in ("image/jpeg", "image/png", "image/webp")
        },
    }
}


@router.post("", status_code=HTTPStatus.CREATED, responses=NOT_FOUND | CANNOT_CREATE | documented(HTTPStatus.FORBIDDEN))
async def create_stream(
    request: CreateStream,
    service: ServiceDependency,
    cameras: CamerasDependency,
    quota: QuotaDependency,
    response: Response,
) -> StreamInfo:
    """Create a stream for single frames or a WebSocket connection, which expires when idle; or pull one from a URL.

    Its zones, lines and rules may be set at once.
    """
    if request.source is None:
        stream = await service.create_watched(request, request.id, request.watched_by, quota)
    else:
        stream = await cameras.add(request, quota)
    response.headers["Location"] = f"/v1/streams/{stream.id}"
    return stream.info


@router.put(
    "/{stream_id}",
    status_code=HTTPStatus.CREATED,
    responses=NOT_FOUND | CANNOT_CREATE | documented(HTTPStatus.FORBIDDEN),
)
async def put_stream(
    stream_id: Id,
    request: CreateStream,
    service: ServiceDependency,
    cameras: CamerasDependency,
    quota: QuotaDependency,
    response: Response,
) -> StreamInfo:
    """Create a stream as `POST` does, with the id where a proxy can see it. An existing one is a conflict."""
    if request.id not in (None, stream_id):
        raise BadMessageError(f"the body's id {request.id!r} isn't that of the path, {stream_id!r}: leave it out")
    return await create_stream(request.model_copy(update={"id": stream_id}), service, cameras, quota, response)


@router.get("")
async def list_streams(service: ServiceDependency, response: Response) -> list[StreamInfo]:
    """List all streams of this server."""
    response.headers[SERVER_HEADER] = service.fleet.instance
    return [stream.info for stream in service.streams]


@router.get("/{stream_id}", responses=NOT_FOUND)
async def show_stream(stream_id: Id, service: ServiceDependency) -> StreamInfo:
    """Show one stream."""
    return service.streams[stream_id].info


@router.patch("/{stream_id}", responses=NOT_PULLED | documented(HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN))
async def change_stream(
    stream_id: Id, changes: ChangeStream, service: ServiceDependency, cameras: CamerasDependency
) -> StreamInfo:
    """Change options of a running stream, such as its interval, or the source of a pulled one."""
    stream = service.streams[stream_id]
    await cameras.change(stream, changes)
    return stream.info


@router.delete("/{stream_id}", status_code=HTTPStatus.NO_CONTENT, responses=NOT_FOUND)
async def delete_stream(stream_id: Id, service: ServiceDependency, cameras: CamerasDependency) -> None:
    """Delete a stream. A connection that feeds it is closed."""
    await cameras.remove(service.streams[stream_id])


@router.post("/{stream_id}/pause", responses=NOT_PULLED)
async def pause_stream(stream_id: Id, service: ServiceDependency, cameras: CamerasDependency) -> StreamInfo:
    """Disconnect a pulled stream from its source. The stream stays."""
    stream = service.streams[stream_id]
    await cameras.set_paused(stream, paused=True)
    return stream.info


@router.post("/{stream_id}/resume", responses=NOT_PULLED)
async def resume_stream(stream_id: Id, service: ServiceDependency, cameras: CamerasDependency) -> StreamInfo:
    """Connect a paused stream to its source again, or one whose source failed, without further waiting."""
    stream = service.streams[stream_id]
    await cameras.set_paused(stream, paused=False)
    return stream.info


@router.get("/{stream_id}/rules", responses=NOT_FOUND)
async def show_rules(stream_id: Id, service: ServiceDependency) -> Rules:
    """Show the zones, lines and rules of a stream."""
    return service.streams[stream_id].rules


@router.put("/{stream_id}/rules", responses=NOT_FOUND | documented(HTTPStatus.BAD_REQUEST))
async def set_rules(stream_id: Id, rules: Rules, service: ServiceDependency, cameras: CamerasDependency) -> Rules:
    """Watch a stream by these zones, lines and rules, instead of those before, whose events end."""
    service.refuse_if_draining()
    stream = service.streams[stream_id]
    await cameras.set_rules(stream, rules)
    return stream.rules


@router.post("/{stream_id}/frames", responses=NOT_FOUND | BAD_FRAME, openapi_extra=IMAGE_BODY)
async def process_frame(
    stream_id: Id,
    header: Annotated[FrameHeader, Query()],
    request: Request,
    service: ServiceDependency,
    quota: QuotaDependency,
) -> Result:
    """Process one JPEG, PNG or WebP image as the stream's next frame."""
    service.refuse_if_draining()
    stream = service.streams[stream_id]
    quota.charge()
    body = await read_body(request, service.settings.max_message_bytes, service.payload_memory)
    with service.in_flight():
        limit = service.settings.max_pixels
        return await stream.process(partial(decode_frame, header, body, limit, upright=stream.upright))
