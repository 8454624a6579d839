"""`POST /v1/videos`: process a video while it is uploaded, and stream its results as JSON lines at the same time."""

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError, field_validator
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from keywarp.protocol import CameraOptions, Container, Done, Error, FrameHeader, StreamOptions, faults
from keywarp.protocol.messages import StreamId
from keywarp.server.decode.decoders import open_decoder
from keywarp.server.errors import (
    BadVideoError,
    DrainingError,
    InternalError,
    ServerError,
    TooLargeError,
    UnsupportedMediaError,
)
from keywarp.server.problems import documented
from keywarp.server.routes.dependencies import CANNOT_CREATE, NOT_FOUND, QuotaDependency, ServiceDependency
from keywarp.server.routes.ndjson import LAST_LINE_TIMEOUT, MEDIA_TYPE, encode_line
from keywarp.server.routes.request_body import check_content_length
from keywarp.server.service import Service
from keywarp.server.streams.pipeline import Pipeline, ReceivedPayload
from keywarp.server.streams.stream import Stream
from keywarp.server.task_scope import task_scope

log = logging.getLogger(__name__)
router = APIRouter()

VideoCodec = Literal["h264", "hevc", Container]  # codecs that can be decoded from a stream of bytes
CODECS: Final[Mapping[str, VideoCodec]] = {  # by media type
    "video/mp4": "mp4",
    "video/quicktime": "mp4",
    "video/webm": "webm",
    "video/matroska": "webm",
    "video/x-matroska": "webm",
    "video/mp2t": "mpegts",
    "video/h264": "h264",
    "video/h265": "hevc",
}
MAX_UNREAD_BYTES: Final = 16 * 2**20  # bytes of unread results at which the upload has to wait
BAD_VIDEO = documented(HTTPStatus.GONE, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)


class VideoOptions(StreamOptions):
    """The query of `POST /v1/videos`."""

    id: StreamId | None = None  # the stream's id, or None for a random one
    codec: VideoCodec | None = None  # None if the body's content type gives the codec
    hidden: str | None = None  # as in `CameraOptions`, in JSON: a query has no lists of lists

    @field_validator("hidden")
    @classmethod
    def _check_hidden(cls, text: str | None) -> str | None:
        _read_hidden(text)
        return text

    @property
    def of_stream(self) -> CameraOptions:
        """The options of the stream."""
        given = self.model_dump(include={*StreamOptions.model_fields}, exclude_unset=True)
        return CameraOptions.model_validate(given | _read_hidden(self.hidden).model_dump(exclude_unset=True))


def _read_hidden(text: str | None) -> CameraOptions:
    """Read hidden regions.

    Raises:
        ValueError: They are none.
    """
    try:
        return CameraOptions(hidden=json.loads(text) if text else None)
    except ValidationError as error:
        raise ValueError(faults.describe(error, limit=1)) from error


def codec_of(options: VideoOptions, content_type: str) -> VideoCodec:
    """Find out the codec of an upload.

    Raises:
        UnsupportedMediaError: Neither the query nor the content type names a codec that can be decoded.
    """
    named = CODECS.get(content_type.partition(";")[0].strip().lower())
    if codec := options.codec or named:
        return codec
    raise UnsupportedMediaError(
        f"the content type {content_type[:64]!r} is none of {', '.join(CODECS)}: send one, or the query `codec`"
    )


class VideoResponse(Response):
    """Processes the request's body, and sends each result as soon as it is ready.

    An error before the first result becomes the response's status. After that, the last line is `done`, or an `error`
    with `fatal`.
    """

    media_type = MEDIA_TYPE

    def __init__(self, request: Request, service: Service, stream: Stream, codec: VideoCodec) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._request = request
        self._service = service
        self._stream = stream
        self._codec = codec
        self._inbox: asyncio.Queue[ReceivedPayload | ServerError | None] = asyncio.Queue(1)  # None marks the end
        self._unread = UnreadLines(MAX_UNREAD_BYTES)
        self._body_read = False  # whether the whole body was read
        self._cut_off = False  # whether the server stops before the whole body was read
        self._started = False  # whether the response was started

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Process the body and send all lines. The stream is removed before the last line is sent."""
        stream = self._stream
        try:
            async with stream.connected():
                with self._service.in_flight():
                    last = await self._process(receive, send)
        except ClientDisconnect:
            log.info("video %s: the client disconnected", stream.id)
            return
        except ServerError as error:
            last = self._fatal(error)
        except Exception:
            log.exception("video %s: internal error", stream.id)
            last = self._fatal(InternalError("the server failed; its log has the details"))
        finally:
            await self._service.streams.remove(stream, f"the upload of stream {stream.id!r} ended")
        log.info("video %s: %r", stream.id, last)
        await self._finish(send, last)

    async def _finish(self, send: Send, last: Done | Error) -> None:
        with contextlib.suppress(TimeoutError):  # a client that has stopped reading
            async with asyncio.timeout(LAST_LINE_TIMEOUT):
                await self._send_lines(send, encode_line(last), more=False)

    async def _process(self, receive: Receive, send: Send) -> Done | Error:
        service = self._service
        chunks = self._codec in ("h264", "hevc")
        decoder = open_decoder(self._codec, service.video_options(self._stream), chunks=chunks)
        pipeline = Pipeline(self._stream, decoder, self._stream.owner)
        try:
            guards = self._read_body(receive), self._stream.raise_when_closed(), self._stop_when_draining()
            async with task_scope(*guards) as tasks:
                tasks.create_task(pipeline.feed(self._payloads()))
                sending = tasks.create_task(self._send(send))
                last = await self._collect(pipeline)
                await sending
        finally:
            await pipeline.close()
        return last

    async def _collect(self, pipeline: Pipeline) -> Done | Error:
        """Queue all responses, and return the last line. An error after the first response becomes the last line."""
        last: Done | Error | None = None
        try:
            async for response in pipeline.responses():
                if response:
                    await self._unread.put(encode_line(response))
        except ServerError as error:
            if not self._unread.used:
                raise
            last = Error(problem=error.problem, fatal=True)
        await self._unread.end()
        return last or pipeline.done

    async def _read_body(self, receive: Receive) -> None:
        limit, size = self._service.settings.max_video_bytes, 0
        async for piece in self._request.stream():
            size += len(piece)
            if size > limit:
                await self._inbox.put(TooLargeError(limit))
                return
            if piece:
                self._stream.touch()
                await self._inbox.put(ReceivedPayload(FrameHeader(), memoryview(piece), time.monotonic()))
        self._body_read = True
        await self._inbox.put(None if size else BadVideoError("the body is empty: send a video"))
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ClientDisconnect

    async def _payloads(self) -> AsyncIterator[ReceivedPayload]:
        while item := await self._inbox.get():
            if isinstance(item, ServerError):
                raise item
            yield item
        if self._cut_off:
            raise DrainingError("the server stops: send the rest in a few seconds")

    async def _stop_when_draining(self) -> None:
        await self._service.draining.wait()
        if not self._body_read:
            self._cut_off = True
            await self._inbox.put(None)

    async def _send(self, send: Send) -> None:
        while lines := await self._unread.take():
            await self._send_lines(send, lines, more=True)

    async def _send_lines(self, send: Send, lines: bytes, *, more: bool) -> None:
        if not self._started:
            self._started = True
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": lines, "more_body": more})

    def _fatal(self, error: ServerError) -> Error:
        """Make the last line of a response that ends with an error.

        Raises:
            ServerError: The error itself, if the response hasn't started, so that it can still have the error's status.
        """
        if not self._started:
            raise error
        return Error(problem=error.problem, fatal=True)


class UnreadLines:
    """A queue of lines to send, because many clients send their whole video before they read any result.

    Attributes:
        used: Whether any line was put into the queue.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._ended = False
        self.used = False
        self._changed = asyncio.Condition()

    async def put(self, line: bytes) -> None:
        """Append a line, once there is room."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._bytes < self._limit)
            self.used = True
            self._lines.append(line)
            self._bytes += len(line)
            self._changed.notify_all()

    async def end(self) -> None:
        """Mark the end of the lines."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def take(self) -> bytes:
        """Wait for lines, and take all of them. Return no bytes at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._lines or self._ended)
            lines = b"".join(self._lines)
            self._lines.clear()
            self._bytes = 0
            self._changed.notify_all()
            return lines


@router.post(
    "/v1/videos",
    status_code=HTTPStatus.OK,
    response_class=VideoResponse,
    responses=NOT_FOUND
    | CANNOT_CREATE
    | BAD_VIDEO
    | {
        int(HTTPStatus.OK): {
            "description": "The results while the video is uploaded, one JSON object a line: `result` or `error` for "
            "each frame, and at last `done`, or `error` with `fatal`.",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
        }
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in CODECS},
        }
    },
)
async def process_video(
    options: Annotated[VideoOptions, Query()], request: Request, service: ServiceDependency, quota: QuotaDependency
) -> VideoResponse:
    """Process a video while it is uploaded, as a new stream. Read the results while you send."""
    codec = codec_of(options, request.headers.get("content-type", ""))
    check_content_length(request, service.settings.max_video_bytes)
    return VideoResponse(request, service, service.create_stream(options.of_stream, options.id, quota), codec)
