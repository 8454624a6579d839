"""The asynchronous client."""

import asyncio
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

from keywarp.client import connecting, reconnecting, rest
from keywarp.client.async_streaming import AsyncResultStream
from keywarp.client.connecting import DEFAULT_SERVER, DEFAULT_TIMEOUT, LOAD_TIMEOUT, READY_POLL
from keywarp.client.errors import ApiError
from keywarp.client.feed import OnError, StreamSetup
from keywarp.client.frames import Source
from keywarp.client.reconnecting import Reconnect
from keywarp.client.resources import AsyncClosable
from keywarp.client.results import ProcessedFrame
from keywarp.client.sources import SourceLike
from keywarp.client.watching import AsyncWatch
from keywarp.protocol import (
    ChangeStream,
    ClientId,
    Codec,
    CreateStream,
    FleetInfo,
    Hello,
    HiddenRegion,
    Masks,
    Mode,
    ModelInfo,
    Reliability,
    Resolution,
    Schedule,
    StreamInfo,
)
from keywarp.protocol.events import Event, Rules

T = TypeVar("T")


class AsyncClient(AsyncClosable):
    """A client of one Keywarp server, over REST and WebSocket, for asyncio.

    Its methods take the same arguments and raise the same errors as those of `Client`, which describes them.

    Example:
        >>> async with AsyncClient("http://127.0.0.1:8080") as client:
        ...     async for result in client.stream("street.mp4"):
        ...         print(result.frame, result.kind, result.latency)
    """

    def __init__(
        self, server: str = DEFAULT_SERVER, timeout: float = DEFAULT_TIMEOUT, api_key: str | None = None
    ) -> None:
        """Prepare a client. The first request connects. `Client` describes the arguments."""
        self.server = connecting.check_server(server)
        self._timeout = timeout
        self._headers = connecting.authorization(api_key, server)
        self._http = httpx.AsyncClient(base_url=self.server, timeout=timeout, headers=self._headers)

    async def wait_until_ready(self, seconds: float = LOAD_TIMEOUT) -> None:
        """Wait while the server loads its models. See `Client.wait_until_ready`."""
        until = time.monotonic() + seconds
        while True:
            try:
                await self._do(rest.ready())
            except ApiError as error:
                if error.status != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() >= until:
                    raise
                await asyncio.sleep(READY_POLL)
            else:
                return

    async def models(self) -> tuple[ModelInfo, ...]:
        """List the models of the server. The field `state` shows which are ready for streams."""
        return await self._do(rest.models())

    async def model(self, name: str) -> ModelInfo:
        """Show one model."""
        return await self._do(rest.model(name))

    async def load_model(self, name: str, *, timeout: float = LOAD_TIMEOUT) -> ModelInfo:  # noqa: ASYNC109 (httpx's)
        """Load a bundle, or load it again, and wait until it is ready, as `Client.load_model` describes."""
        return await self._do(rest.load_model(name, timeout))

    async def unload_model(self, name: str, *, force: bool = False) -> ModelInfo:
        """Unload a model when its streams have ended, or at once with `force`, as `Client.unload_model` describes."""
        return await self._do(rest.unload_model(name, force=force))

    async def streams(self) -> tuple[StreamInfo, ...]:
        """List the streams."""
        return await self._do(rest.streams())

    async def fleet(self) -> FleetInfo:
        """List the streams of all servers behind one address, and which of the servers don't answer."""
        return await self._do(rest.fleet())

    async def stream_info(self, stream_id: str) -> StreamInfo:
        """Show one stream."""
        return await self._do(rest.stream_info(stream_id))

    async def create_stream(
        self,
        stream_id: str | None = None,
        *,
        model: str | None = None,
        interval: int | None = None,
        schedule: Schedule | None = None,
        max_interval: int | None = None,
        max_age: float | None = None,
        overlap: int | None = None,
        max_fps: float | None = None,
        mode: Mode | None = None,
        masks: Masks | None = None,
        resolution: Resolution | None = None,
        reliability: Reliability | None = None,
        track: bool | None = None,
        upright: bool | None = None,
        video: int | None = None,
        hidden: Sequence[HiddenRegion] = (),
        source: str | None = None,
        sinks: Sequence[str] = (),
        rules: Rules | None = None,
    ) -> StreamInfo:
        """Create a stream, to send single frames to with `infer`, or for the server to pull.

        `Client.create_stream` describes the arguments and the errors.
        """
        options = CreateStream(
            id=stream_id,
            model=model,
            interval=interval,
            schedule=schedule,
            max_interval=max_interval,
            max_age=max_age,
            overlap=overlap,
            max_fps=max_fps,
            mode=mode,
            masks=masks,
            resolution=resolution,
            reliability=reliability,
            track=track,
            upright=upright,
            video=video,
            hidden=tuple(hidden) or None,
            source=source,
            sinks=tuple(sinks) or None,
            **(rules.model_dump(exclude_unset=True) if rules else {}),
        )
        return await self._do(rest.create_stream(options))

    async def change_stream(self, stream_id: str, **changes: Any) -> StreamInfo:
        """Change options of a running stream, as `Client.change_stream` describes."""
        return await self._do(rest.change_stream(stream_id, ChangeStream(**changes)))

    async def pause_stream(self, stream_id: str) -> StreamInfo:
        """Disconnect a pulled stream from its source, and keep the stream."""
        return await self._do(rest.pause_stream(stream_id))

    async def resume_stream(self, stream_id: str) -> StreamInfo:
        """Pull a paused stream again."""
        return await self._do(rest.resume_stream(stream_id))

    def watch(self, stream_id: str) -> AsyncWatch:
        """Iterate over the results, from now on, of a stream that the server pulls or another client feeds.

        A reader that is too slow misses some (`AsyncWatch.missed`) and delays nobody. If you leave the loop early, do
        so in an `async with` statement, which ends the watch. `Client.watch` describes the errors.
        """
        transport = httpx.AsyncHTTPTransport(socket_options=connecting.KEEPALIVE)
        client = httpx.AsyncClient(
            base_url=self.server, timeout=self._timeout, headers=self._headers, transport=transport
        )
        return AsyncWatch(client, self.server, stream_id)

    async def set_rules(self, stream_id: str, rules: Rules) -> Rules:
        """Watch a stream by zones, lines and rules, instead of those before, whose events end."""
        return await self._do(rest.set_rules(stream_id, rules))

    async def events(
        self, stream_id: str | None = None, *, rule: str | None = None, limit: int = 100
    ) -> tuple[Event, ...]:
        """List what the rules of streams reported, the newest first. `Client.events` describes the arguments."""
        return await self._do(rest.events(stream_id, rule, limit))

    async def delete_stream(self, stream_id: str) -> None:
        """Delete a stream."""
        await self._do(rest.delete_stream(stream_id))

    async def infer(
        self,
        stream_id: str,
        image: NDArray[np.uint8] | bytes,
        *,
        id: ClientId | None = None,  # noqa: A002
        timestamp: float | None = None,
        quality: int = 90,
    ) -> ProcessedFrame:
        """Send the next frame of a stream and wait for its result.

        A thread compresses the image. `Client.infer` describes the arguments and the errors.
        """
        call = await asyncio.to_thread(rest.infer, stream_id, image, id, timestamp, quality)
        sent = time.monotonic()
        result = await self._do(call)
        received = time.monotonic()
        return ProcessedFrame(result, image if isinstance(image, np.ndarray) else None, received - sent, received)

    def stream(
        self,
        source: SourceLike | Source,
        *,
        model: str | None = None,
        interval: int | None = None,
        schedule: Schedule | None = None,
        max_interval: int | None = None,
        max_age: float | None = None,
        overlap: int | None = None,
        mode: Mode | None = None,
        masks: Masks | None = None,
        resolution: Resolution | None = None,
        reliability: Reliability | None = None,
        track: bool | None = None,
        upright: bool | None = None,
        video: int | None = None,
        codec: Codec = "image",
        in_flight: int = 2,
        quality: int = 90,
        on_error: OnError = "raise",
        decode: bool = False,
        stream_id: str | None = None,
        reconnect: Reconnect | float | None = reconnecting.DEFAULT,
    ) -> AsyncResultStream:
        """Send the frames of a source over a WebSocket and iterate over their results, in order.

        The first result, or entering `async with`, makes the connection. Threads read the source and compress the
        frames. `Client.stream` describes the arguments and the errors.
        """
        hello = Hello(
            model=model,
            interval=interval,
            schedule=schedule,
            max_interval=max_interval,
            max_age=max_age,
            overlap=overlap,
            mode=mode,
            masks=masks,
            resolution=resolution,
            reliability=reliability,
            track=track,
            upright=upright,
            video=video,
            codec=codec,
        )
        setup = StreamSetup(hello, in_flight, quality, on_error, decode, stream_id, Reconnect.of(reconnect))
        return AsyncResultStream(self.server, source, setup, self._timeout, self._headers)

    async def close(self) -> None:
        """Close the connections that are kept for the next request."""
        await self._http.aclose()

    async def _do(self, call: rest.Call[T]) -> T:
        with connecting.connection_errors(self.server):
            response = await self._http.send(call.request(self._http))
        return call.read(response)
