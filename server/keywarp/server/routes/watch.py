"""The routes of subscribers: a stream's responses as they are delivered, and its frames with their results drawn in."""

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from functools import partial
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from keywarp.protocol import Gone, Missed
from keywarp.server.errors import DrainingError, TooManyStreamsError
from keywarp.server.overlay import draw
from keywarp.server.problems import documented
from keywarp.server.routes.dependencies import NOT_FOUND, ServiceDependency
from keywarp.server.routes.ndjson import LAST_LINE_TIMEOUT, MEDIA_TYPE, encode_line
from keywarp.server.service import Service
from keywarp.server.streams.stream import Stream
from keywarp.server.streams.subscribers import ResultFrame
from keywarp.server.task_scope import task_scope

router = APIRouter(prefix="/v1/streams/{stream_id}")

MAX_SUBSCRIBERS: Final = 16  # per stream
TOO_MANY = documented(HTTPStatus.TOO_MANY_REQUESTS)


class PreviewOptions(BaseModel):
    """The query of a preview."""

    model_config = ConfigDict(extra="forbid")

    fps: float = Field(default=10.0, gt=0, le=60)  # the most pictures per second
    width: int = Field(default=640, ge=16, le=1920)  # the greatest width in pixels
    zones: bool = True  # whether zones and lines are drawn, too


@router.get(
    "/results",
    response_class=Response,
    responses=NOT_FOUND
    | TOO_MANY
    | {
        int(HTTPStatus.OK): {
            "description": "The stream's responses from now on, one JSON object a line: `result`, `error`, `dropped`; "
            "`missed` in place of those that a slow reader missed; at last `gone`.",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
        }
    },
)
async def watch_results(stream_id: str, service: ServiceDependency) -> Response:
    """Subscribe to a stream's responses without feeding it."""
    return _ResultsResponse(service, _find(stream_id, service))


@router.get(
    "/preview",
    response_class=Response,
    responses=NOT_FOUND
    | TOO_MANY
    | {
        int(HTTPStatus.OK): {
            "description": "The stream's frames from now on as JPEGs, with their results drawn on them.",
            "content": {"multipart/x-mixed-replace": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def watch_frames(
    stream_id: str, options: Annotated[PreviewOptions, Query()], service: ServiceDependency
) -> Response:
    """Subscribe to a stream's annotated frames. Browsers show them as a moving picture."""
    return _PreviewResponse(service, _find(stream_id, service), options)


def _find(stream_id: str, service: Service) -> Stream:
    service.refuse_if_draining()
    stream = service.streams[stream_id]
    if len(stream.subscribers) >= MAX_SUBSCRIBERS:
        raise TooManyStreamsError(
            f"stream {stream.id!r} has its {MAX_SUBSCRIBERS} subscribers: try again later", "watchers"
        )
    return stream


class EndlessResponse(Response, ABC):
    """A response that lasts until it has no more parts, the client disconnects, or the server stops."""

    def __init__(self, service: Service, media_type: str) -> None:
        super().__init__(media_type=media_type, headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._service = service

    @abstractmethod
    def parts(self) -> AsyncGenerator[bytes]:
        """Generate the parts of the body."""

    @property
    def end_reason(self) -> str:
        """Why there are no more parts."""
        return ""

    def last_part(self, reason: str) -> bytes:  # noqa: ARG002
        """Make the last part, given the reason for the end."""
        return b""

    def guards(self) -> tuple[Coroutine[None, None, None], ...]:
        """Return what ends the response by an exception."""
        return (self._raise_when_draining(),)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send all parts."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with task_scope(*self.guards(), _raise_when_disconnected(receive)):
                await send({"type": "http.response.body", "body": b"", "more_body": True})  # sends the headers now
                async with aclosing(self.parts()) as parts:
                    async for part in parts:
                        await send({"type": "http.response.body", "body": part, "more_body": True})
        except ClientDisconnect:
            return
        except DrainingError as error:
            last = self.last_part(str(error))
        else:
            last = self.last_part(self.end_reason)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_LINE_TIMEOUT):
                await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _raise_when_draining(self) -> None:
        await self._service.draining.wait()
        raise DrainingError("the server stops")


class _SubscriberResponse(EndlessResponse, ABC):
    """A response that lasts until the stream is closed, the client disconnects, or the server stops."""

    def __init__(self, service: Service, stream: Stream, media_type: str) -> None:
        super().__init__(service, media_type)
        self._stream = stream

    @property
    def end_reason(self) -> str:
        """Why the stream was closed."""
        return self._stream.close_reason

    def guards(self) -> tuple[Coroutine[None, None, None], ...]:
        """Add the end of the stream."""
        return (*super().guards(), self._raise_after_close())

    async def _raise_after_close(self) -> None:
        """Give up on a client that has stopped reading, some time after the stream was closed."""
        await self._stream.closed.wait()
        await asyncio.sleep(LAST_LINE_TIMEOUT)
        raise ClientDisconnect


async def _raise_when_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect


class _ResultsResponse(_SubscriberResponse):
    def __init__(self, service: Service, stream: Stream) -> None:
        super().__init__(service, stream, MEDIA_TYPE)

    async def parts(self) -> AsyncGenerator[bytes]:
        with self._stream.subscribers.subscribe() as subscription:
            while (taken := await subscription.take()) != (0, []):
                missed, responses = taken
                lines = [encode_line(Missed(count=missed))] if missed else []
                yield b"".join([*lines, *map(encode_line, responses)])

    def last_part(self, reason: str) -> bytes:
        return encode_line(Gone(reason=reason))


class _PreviewResponse(_SubscriberResponse):
    def __init__(self, service: Service, stream: Stream, options: PreviewOptions) -> None:
        self._boundary = f"keywarp-{secrets.token_hex(8)}"
        super().__init__(service, stream, f"multipart/x-mixed-replace; boundary={self._boundary}")
        self._options = options

    async def parts(self) -> AsyncGenerator[bytes]:
        loop, interval = asyncio.get_running_loop(), 1 / self._options.fps
        with self._stream.subscribers.preview() as preview:
            while True:
                started = loop.time()
                if (taken := await preview.take()) is None:
                    return
                yield await draw_part(self._stream, taken, self._boundary, self._options)
                del taken  # frees the frame while the picture is sent
                await asyncio.sleep(interval - (loop.time() - started))

    def last_part(self, reason: str) -> bytes:  # noqa: ARG002
        return f"--{self._boundary}--\r\n".encode()


async def draw_part(stream: Stream, shown: ResultFrame, boundary: str, options: PreviewOptions) -> bytes:
    """Draw a frame with its result as a part of a moving picture, whose headers name the stream and the frame."""
    frame, found = shown
    manifest = stream.engine.bundle.manifest
    rules = stream.rules if options.zones else None
    paint = partial(draw, frame.pixels, found, manifest.classes, options.width, manifest.background, rules)
    jpeg = await asyncio.get_running_loop().run_in_executor(stream.pool, paint)
    head = (
        f"--{boundary}\r\nContent-Type: image/jpeg\r\nKeywarp-Stream: {stream.id}\r\n"
        f"Keywarp-Frame: {found.index}\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    )
    return head.encode() + jpeg + b"\r\n"
