"""`GET /v1/previews`: the annotated frames of many streams over one connection, since browsers open only a few."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import ExitStack, aclosing
from http import HTTPStatus
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from keywarp.protocol.messages import StreamId
from keywarp.server.fleet import SERVER_HEADER
from keywarp.server.problems import documented
from keywarp.server.routes.dependencies import UNAVAILABLE, ServiceDependency
from keywarp.server.routes.watch import MAX_SUBSCRIBERS, EndlessResponse, PreviewOptions, draw_part
from keywarp.server.service import Service
from keywarp.server.streams.stream import Stream
from keywarp.server.streams.subscribers import Preview

router = APIRouter()

MAX_STREAMS: Final = 256  # that a query may name
LOOK_AGAIN: Final = 3.0  # seconds after which other servers that have none of our connections are asked again
WAITING: Final = 8  # pictures of all servers that may wait for the client
MAX_PICTURES: Final = 24  # per second of all streams together, since each takes milliseconds of the processor

_Watched = dict[Stream, tuple[Preview, ExitStack]]


class WallOptions(PreviewOptions):
    """The query of the previews of many streams."""

    fps: float = Field(default=2.0, gt=0, le=10)  # the most pictures per second of each stream
    width: int = Field(default=320, ge=16, le=640)  # the greatest width in pixels
    stream: Annotated[tuple[StreamId, ...], Field(max_length=MAX_STREAMS)] = ()  # ids; all streams if there is none
    fleet: bool = False  # whether the streams of the other servers are shown, too

    @property
    def query(self) -> str:
        """The query for another server, about its own streams."""
        given = self.model_dump(mode="json", exclude={"fleet"})
        return urlencode(given, doseq=True)


@router.get(
    "/v1/previews",
    response_class=Response,
    responses=UNAVAILABLE
    | documented(HTTPStatus.UNPROCESSABLE_ENTITY)
    | {
        int(HTTPStatus.OK): {
            "description": "The streams' frames from now on as JPEGs, with their results drawn on them. The header "
            "`Keywarp-Stream` of each part names its stream, and `Keywarp-Frame` the frame. Streams come and go.",
            "content": {"multipart/x-mixed-replace": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def watch_wall(
    request: Request, options: Annotated[WallOptions, Query()], service: ServiceDependency
) -> Response:
    """Subscribe to the annotated frames of all streams, or of some, over one connection."""
    service.refuse_if_draining()
    return _WallResponse(service, options, request.headers)


class _WallResponse(EndlessResponse):
    def __init__(self, service: Service, options: WallOptions, headers: Mapping[str, str]) -> None:
        self._boundary = f"keywarp-{secrets.token_hex(8)}"
        super().__init__(service, f"multipart/x-mixed-replace; boundary={self._boundary}")
        self.headers[SERVER_HEADER] = service.fleet.instance
        self._options = options
        self._key = headers  # of the caller, for the other servers
        self._watched: _Watched = {}
        self._merged: asyncio.Queue[bytes] = asyncio.Queue(WAITING)  # full while the client reads slowly: then all wait

    def guards(self) -> tuple[Coroutine[None, None, None], ...]:
        """Add what collects the pictures of the other servers."""
        return (*super().guards(), *((self._take_own(), self._take_others()) if self._options.fleet else ()))

    async def parts(self) -> AsyncGenerator[bytes]:
        if self._options.fleet:
            while True:
                yield await self._merged.get()
        async with aclosing(self._own_parts()) as parts:
            async for part in parts:
                yield part

    async def _take_own(self) -> None:
        async with aclosing(self._own_parts()) as parts:
            async for part in parts:
                await self._merged.put(part)

    async def _take_others(self) -> None:
        """Take the pictures of the other servers. Connect again to those that come, or come back."""
        fleet, passing = self._service.fleet, dict[str, asyncio.Task[None]]()
        async with asyncio.TaskGroup() as tasks:
            while True:
                for address in await fleet.addresses():
                    if address not in passing or passing[address].done():
                        passing[address] = tasks.create_task(self._take_peer(address))
                await asyncio.sleep(LOOK_AGAIN)

    async def _take_peer(self, address: str) -> None:
        async with aclosing(self._service.fleet.previews(address, self._options.query, self._key)) as parts:
            async for part in parts:
                await self._merged.put(f"--{self._boundary}\r\n".encode() + part)

    async def _own_parts(self) -> AsyncGenerator[bytes]:
        loop = asyncio.get_running_loop()
        try:
            while True:
                started = loop.time()
                self._follow()
                for stream, (preview, _) in tuple(self._watched.items()):
                    if taken := preview.take_nowait():
                        yield await draw_part(stream, taken, self._boundary, self._options)
                        del taken  # frees the frame while the picture is sent
                interval = max(1 / self._options.fps, len(self._watched) / MAX_PICTURES)
                await asyncio.sleep(max(0.0, interval - (loop.time() - started)))
        finally:
            for _, watching in self._watched.values():
                watching.close()

    def _follow(self) -> None:
        """Begin to watch new streams, and forget those that are gone."""
        present = {one for one in self._service.streams if not self._options.stream or one.id in self._options.stream}
        for stream in self._watched.keys() - present:
            self._watched.pop(stream)[1].close()
        for stream in present - self._watched.keys():
            if len(stream.subscribers) < MAX_SUBSCRIBERS:
                watching = ExitStack()
                self._watched[stream] = watching.enter_context(stream.subscribers.preview()), watching

    def last_part(self, reason: str) -> bytes:  # noqa: ARG002
        return f"--{self._boundary}--\r\n".encode()
