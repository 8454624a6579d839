"""`POST /v1/videos`: a video in the body, its results as NDJSON while it is being uploaded."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Final, Literal

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from keywarp.protocol import Container, Done, Error, FrameHeader, StreamOptions
from keywarp.protocol.messages import StreamId
from keywarp.server.decode.decoders import open_decoder
from keywarp.server.errors import DrainingError, InternalError, ServerError, TooLargeError, UnsupportedMediaError
from keywarp.server.service import Service
from keywarp.server.streams.pipeline import Arrived, Pipeline, beside
from keywarp.server.streams.stream import Stream

log = logging.getLogger(__name__)

VideoCodec = Literal["h264", "hevc", Container]  # what can be found in a stream of bytes
MEDIA_TYPES: Final[Mapping[str, VideoCodec]] = {
    "video/mp4": "mp4",
    "video/quicktime": "mp4",
    "video/webm": "webm",
    "video/matroska": "webm",
    "video/x-matroska": "webm",
    "video/mp2t": "mpegts",
    "video/h264": "h264",
    "video/h265": "hevc",
}
NDJSON: Final = "application/x-ndjson"
BACKLOG_BYTES: Final = 16 * 2**20  # of results that the client hasn't read, before its video isn't read any more
FAREWELL: Final = 5.0  # seconds to take the last line in


class VideoOptions(StreamOptions):
    """The query of `POST /v1/videos`."""

    id: StreamId | None = None  # the stream's; None: the server chooses
    codec: VideoCodec | None = None  # None: by the body's content type


def codec_of(options: VideoOptions, content_type: str) -> VideoCodec:
    """What the body is.

    Raises:
        UnsupportedMediaError: Nothing says so, or it can't be decoded while it comes in.
    """
    named = MEDIA_TYPES.get(content_type.partition(";")[0].strip().lower())
    if codec := options.codec or named:
        return codec
    raise UnsupportedMediaError(
        f"the content type {content_type[:64]!r} is none of {', '.join(MEDIA_TYPES)}: give one, or the query `codec`"
    )


class VideoResponse(Response):
    """Processes the request's body and sends the results, as soon as there is one.

    Until then, errors are answered with their status; after that, the last line says `error` (fatal) or `done`.
    """

    media_type = NDJSON

    def __init__(self, request: Request, service: Service, stream: Stream, codec: VideoCodec) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._request = request
        self._service = service
        self._stream = stream
        self._codec = codec
        self._inbox: asyncio.Queue[Arrived | ServerError | None] = asyncio.Queue(1)  # None: the end
        self._backlog = _Backlog(BACKLOG_BYTES)
        self._whole = False  # the body has been read
        self._cut = False  # it won't be: the server stops
        self._started = False  # the response has been

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - it's the request's
        """Do all of it. The stream is gone before the last line is sent."""
        stream = self._stream
        try:
            async with stream.connected():
                with self._service.conversation():
                    last = await self._process(receive, send)
        except ClientDisconnect:
            log.info("video %s: the client vanished", stream.id)
            return
        except ServerError as error:
            last = self._fatal(error)
        except Exception:
            log.exception("video %s: a fault of the server", stream.id)
            last = self._fatal(InternalError("the server failed: its log says more"))
        finally:
            await self._service.streams.remove(stream, f"the upload of stream {stream.id!r} ended")
        log.info("video %s: %r", stream.id, last)
        with contextlib.suppress(TimeoutError):  # a client that reads nothing any more
            async with asyncio.timeout(FAREWELL):
                await self._send_lines(send, _line(last), more=False)

    async def _process(self, receive: Receive, send: Send) -> Done | Error:
        chunks = self._codec in ("h264", "hevc")
        decoder = open_decoder(self._codec, self._service.settings.max_pixels, self._service.nvdec, chunks=chunks)
        pipeline = Pipeline(self._service, self._stream, decoder, self._stream.owner)
        try:
            async with beside(self._read(receive), self._stream.watch(), self._watch_server()) as tasks:
                tasks.create_task(pipeline.decode(self._arrivals()))
                sending = tasks.create_task(self._send(send))
                last = await self._collect(pipeline)
                await sending
        finally:
            await pipeline.close()
        return last

    async def _collect(self, pipeline: Pipeline) -> Done | Error:
        """Queue all answers; returns the last line, which may be why there are no more."""
        last: Done | Error | None = None
        try:
            async for answer in pipeline.answers():
                if answer:
                    await self._backlog.put(_line(answer))
        except ServerError as error:
            if not self._backlog.used:
                raise
            last = Error(problem=error.problem, fatal=True)
        await self._backlog.end()
        return last or pipeline.done

    async def _read(self, receive: Receive) -> None:
        limit, size = self._service.settings.max_video_bytes, 0
        async for piece in self._request.stream():
            size += len(piece)
            if size > limit:
                await self._inbox.put(TooLargeError(limit))
                return
            if piece:
                await self._inbox.put(Arrived(FrameHeader(), memoryview(piece), time.monotonic()))
        self._whole = True
        await self._inbox.put(None)
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ClientDisconnect

    async def _arrivals(self) -> AsyncIterator[Arrived]:
        while item := await self._inbox.get():
            if isinstance(item, ServerError):
                raise item
            yield item
        if self._cut:
            raise DrainingError("the server stops: send the rest in a few seconds")

    async def _watch_server(self) -> None:
        await self._service.draining.wait()
        if not self._whole:
            self._cut = True
            await self._inbox.put(None)

    async def _send(self, send: Send) -> None:
        while lines := await self._backlog.get():
            await self._send_lines(send, lines, more=True)

    async def _send_lines(self, send: Send, lines: bytes, *, more: bool) -> None:
        if not self._started:
            self._started = True
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": lines, "more_body": more})

    def _fatal(self, error: ServerError) -> Error:
        """The last line, where it is too late for a status.

        Raises:
            ServerError: It isn't.
        """
        if not self._started:
            raise error
        return Error(problem=error.problem, fatal=True)


class _Backlog:
    """Lines that wait to be sent: many clients read no results before they have sent their whole video.

    Attributes:
        used: There has been a line.
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
        """Say that nothing follows."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def get(self) -> bytes:
        """Wait for lines, and take all that there are; nothing at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._lines or self._ended)
            lines = b"".join(self._lines)
            self._lines.clear()
            self._bytes = 0
            self._changed.notify_all()
            return lines


def _line(message: BaseModel) -> bytes:
    return message.model_dump_json(exclude_none=True).encode() + b"\n"
