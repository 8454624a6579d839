"""The routes of those who watch a stream: its answers as they come, and its pictures with what was found on them."""

import asyncio
import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
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
from keywarp.server.problems import documented
from keywarp.server.routes.dependencies import NOT_FOUND, Serving
from keywarp.server.routes.videos import FAREWELL, NDJSON
from keywarp.server.service import Service
from keywarp.server.streams.overlay import draw
from keywarp.server.streams.pipeline import beside
from keywarp.server.streams.stream import Stream
from keywarp.server.streams.subscribers import Window

log = logging.getLogger(__name__)
router = APIRouter()

MAX_WATCHERS: Final = 16  # of one stream
FULL = documented(HTTPStatus.TOO_MANY_REQUESTS)


class PreviewOptions(BaseModel):
    """The query of a preview."""

    model_config = ConfigDict(extra="forbid")

    fps: float = Field(default=10.0, gt=0, le=60)  # pictures per second at most
    width: int = Field(default=640, ge=16, le=1920)  # pixels at most


@router.get(
    "/v1/streams/{stream_id}/results",
    response_class=Response,
    responses=NOT_FOUND
    | FULL
    | {
        int(HTTPStatus.OK): {
            "description": "The stream's answers from now on, one JSON object a line: `result`, `error`, `dropped`; "
            "`missed` in place of what a slow reader missed; at last `gone`.",
            "content": {NDJSON: {"schema": {"type": "string"}}},
        }
    },
)
async def watch_results(stream_id: str, service: Serving) -> Response:
    """Watch what is found on a stream, beside whoever feeds it."""
    return _Results(service, _find(stream_id, service))


@router.get(
    "/v1/streams/{stream_id}/preview",
    response_class=Response,
    responses=NOT_FOUND
    | FULL
    | {
        int(HTTPStatus.OK): {
            "description": "The stream's frames from now on as JPEGs, with what was found on them.",
            "content": {"multipart/x-mixed-replace": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def watch_frames(stream_id: str, options: Annotated[PreviewOptions, Query()], service: Serving) -> Response:
    """Watch a stream's frames; browsers show this as a picture that moves."""
    return _Preview(service, _find(stream_id, service), options)


def _find(stream_id: str, service: Service) -> Stream:
    service.refuse_if_draining()
    stream = service.streams[stream_id]
    if len(stream.audience) >= MAX_WATCHERS:
        raise TooManyStreamsError(f"stream {stream.id!r} has its {MAX_WATCHERS} watchers: try again later", "watchers")
    return stream


class _Watch(Response, ABC):
    """Goes on until the stream or the watcher is gone, or the server stops."""

    def __init__(self, service: Service, stream: Stream, media_type: str) -> None:
        super().__init__(media_type=media_type, headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._service = service
        self._stream = stream

    @abstractmethod
    def parts(self) -> AsyncGenerator[bytes]:
        """What there is to send, until the stream is over."""

    def farewell(self, reason: str) -> bytes:  # noqa: ARG002
        """The last part."""
        return b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send it all."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with beside(self._watch_server(), self._watch_stream(), _watch_client(receive)):
                await send({"type": "http.response.body", "body": b"", "more_body": True})  # the headers go out now
                async with aclosing(self.parts()) as parts:
                    async for part in parts:
                        await send({"type": "http.response.body", "body": part, "more_body": True})
        except ClientDisconnect:
            return
        except DrainingError as error:
            last = self.farewell(str(error))
        else:
            last = self.farewell(self._stream.gone_because)
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _watch_stream(self) -> None:
        """Don't wait for a reader that has stopped reading when the stream is over."""
        await self._stream.gone.wait()
        await asyncio.sleep(FAREWELL)
        raise ClientDisconnect

    async def _watch_server(self) -> None:
        await self._service.draining.wait()
        raise DrainingError("the server stops")


async def _watch_client(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect


class _Results(_Watch):
    def __init__(self, service: Service, stream: Stream) -> None:
        super().__init__(service, stream, NDJSON)

    async def parts(self) -> AsyncGenerator[bytes]:
        with self._stream.audience.seat() as seat:
            while (news := await seat.take()) != (0, []):
                missed, answers = news
                lines = [_line(Missed(count=missed))] if missed else []
                yield b"".join([*lines, *map(_line, answers)])

    def farewell(self, reason: str) -> bytes:
        return _line(Gone(reason=reason))


class _Preview(_Watch):
    def __init__(self, service: Service, stream: Stream, options: PreviewOptions) -> None:
        self._boundary = f"keywarp-{secrets.token_hex(8)}"
        super().__init__(service, stream, f"multipart/x-mixed-replace; boundary={self._boundary}")
        self._options = options

    async def parts(self) -> AsyncGenerator[bytes]:
        loop, pause = asyncio.get_running_loop(), 1 / self._options.fps
        with self._stream.audience.window() as window:
            while True:
                begun = loop.time()
                jpeg = await self._draw(window)
                if jpeg is None:
                    return
                head = f"--{self._boundary}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                yield head.encode() + jpeg + b"\r\n"
                await asyncio.sleep(pause - (loop.time() - begun))

    async def _draw(self, window: Window) -> bytes | None:
        """The next picture; holds no frame while it is being sent."""
        if scene := await window.take():
            classes = self._stream.engine.bundle.manifest.classes
            paint = partial(draw, scene.picture.pixels, scene.found, classes, self._options.width)
            return await asyncio.get_running_loop().run_in_executor(self._service.pool, paint)
        return None

    def farewell(self, reason: str) -> bytes:  # noqa: ARG002
        return f"--{self._boundary}--\r\n".encode()


def _line(message: BaseModel) -> bytes:
    return message.model_dump_json(exclude_none=True).encode() + b"\n"
