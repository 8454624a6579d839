"""The client for asyncio."""

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

from keywarp.client import calls, reconnecting
from keywarp.client.async_streaming import AsyncResultStream
from keywarp.client.calls import DEFAULT_SERVER, DEFAULT_TIMEOUT, LOAD_TIMEOUT, Call
from keywarp.client.frames import Source
from keywarp.client.plan import OnError, StreamPlan
from keywarp.client.reconnecting import Reconnect
from keywarp.client.results import ProcessedFrame
from keywarp.client.sources import SourceLike
from keywarp.client.watching import AsyncWatch
from keywarp.protocol import ClientId, Codec, CreateStream, Masks, Mode, ModelInfo, Resolution, Schedule, StreamInfo

T = TypeVar("T")


class AsyncClient:
    """A Keywarp server, over REST and WebSocket, for asyncio: the twin of `Client`.

    Example:
        >>> async with AsyncClient("http://127.0.0.1:8080") as client:
        ...     async for result in client.stream("street.mp4"):
        ...         print(result.frame, result.kind, result.latency)
    """

    def __init__(
        self, server: str = DEFAULT_SERVER, timeout: float = DEFAULT_TIMEOUT, api_key: str | None = None
    ) -> None:
        """Name a server; nothing is sent yet.

        Args:
            server: Its address, http:// or https://.
            timeout: Seconds that an answer may take.
            api_key: Where the server wants one; None: that of the environment, `KEYWARP_API_KEY`, if it is set.

        Raises:
            ValueError: The address isn't one.
        """
        self.server = calls.check_server(server)
        self._timeout = timeout
        self._headers = calls.authorization(api_key)
        self._http = httpx.AsyncClient(base_url=self.server, timeout=timeout, headers=self._headers)

    async def models(self) -> tuple[ModelInfo, ...]:
        """List the models of the server; `state` says which are ready for streams."""
        return await self._do(calls.models())

    async def model(self, name: str) -> ModelInfo:
        """Show one model.

        Raises:
            ApiError: There is none of that name (status 404).
        """
        return await self._do(calls.model(name))

    async def load_model(self, name: str, *, timeout: float = LOAD_TIMEOUT) -> ModelInfo:  # noqa: ASYNC109 - httpx's
        """Have a bundle of the server's models folder loaded, or loaded anew; wait until it is ready.

        Streams go on with the version that they have; new ones get the new one.

        Args:
            name: The model's name.
            timeout: Seconds to wait; the server finishes loading in any case.

        Raises:
            ApiError: The server doesn't let you (403), there is no such bundle (404), or it can't be loaded (422): then
                the version before it is still served.
        """
        return await self._do(calls.load_model(name, timeout))

    async def unload_model(self, name: str, *, force: bool = False) -> ModelInfo:
        """Have a model unloaded: it takes no new streams, and is freed when those that it has have ended.

        Args:
            name: The model's name.
            force: End its streams now.

        Raises:
            ApiError: The server doesn't let you (403), or the model isn't loaded (404).
        """
        return await self._do(calls.unload_model(name, force=force))

    async def streams(self) -> tuple[StreamInfo, ...]:
        """List the streams."""
        return await self._do(calls.streams())

    async def stream_info(self, stream_id: str) -> StreamInfo:
        """Show one stream.

        Raises:
            ApiError: There is none of that id (status 404).
        """
        return await self._do(calls.stream_info(stream_id))

    async def create_stream(
        self,
        stream_id: str | None = None,
        *,
        model: str | None = None,
        interval: int | None = None,
        schedule: Schedule | None = None,
        max_interval: int | None = None,
        mode: Mode | None = None,
        masks: Masks | None = None,
        resolution: Resolution | None = None,
        source: str | None = None,
        sinks: Sequence[str] = (),
    ) -> StreamInfo:
        """Make a stream to send single frames to with `infer`, or one that the server pulls.

        Args:
            stream_id: Its name; None lets the server choose.
            model: The model's name; None is the server's default.
            interval: Frames from one key frame to the next; None is the model's default.
            schedule: `fixed`, or `adaptive`: key frames where the content changes, `interval` being the mean; None is
                the server's default.
            max_interval: Frames from one key frame to the next at most. With `adaptive`; None is 3 x `interval`. With
                `fixed` in the mode `latest`: how far the interval may grow where frames are being dropped; None: not.
            mode: For who streams to it by its `stream_id` later, as in `stream`; single frames always have their turn.
            masks: How segmentations come: `png`, `rle` or `none`; None is `png`.
            resolution: Of masks: `model` or `frame`; None is `model`.
            source: A URL (`rtsp://`, `http://`, `https://`) that the server pulls; None: it is fed by clients.
            sinks: Of the server, by name, which also get the results.

        Raises:
            ApiError: There is no such model (404), the name is taken (409), the intervals don't go together or a sink
                is unknown (400), the server doesn't pull from there (403), or there are too many streams (429).
        """
        options = CreateStream(
            id=stream_id,
            model=model,
            interval=interval,
            schedule=schedule,
            max_interval=max_interval,
            mode=mode,
            masks=masks,
            resolution=resolution,
            source=source,
            sinks=tuple(sinks) or None,
        )
        return await self._do(calls.create_stream(options))

    async def pause_stream(self, stream_id: str) -> StreamInfo:
        """Let the source of a pulled stream go, and keep the stream.

        Raises:
            ApiError: There is none of that id (status 404), or it isn't pulled (409).
        """
        return await self._do(calls.pause_stream(stream_id))

    async def resume_stream(self, stream_id: str) -> StreamInfo:
        """Pull a paused stream again.

        Raises:
            ApiError: There is none of that id (status 404), or it isn't pulled (409).
        """
        return await self._do(calls.resume_stream(stream_id))

    def watch(self, stream_id: str) -> AsyncWatch:
        """Iterate over the results of a stream that the server pulls or another client feeds, from now on.

        Whoever is too slow misses some (`AsyncWatch.missed`) and holds nobody up. Leave the loop early only in an
        `async with` statement, which ends it.

        Raises:
            ApiError: There is none of that id (status 404), or it has too many watchers (429).
            ConnectError: No server answers, or the connection breaks.
        """
        transport = httpx.AsyncHTTPTransport(socket_options=calls.KEEPALIVE)
        client = httpx.AsyncClient(
            base_url=self.server, timeout=self._timeout, headers=self._headers, transport=transport
        )
        return AsyncWatch(client, self.server, stream_id)

    async def delete_stream(self, stream_id: str) -> None:
        """Free a stream.

        Raises:
            ApiError: There is none of that id (status 404).
        """
        await self._do(calls.delete_stream(stream_id))

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

        Args:
            stream_id: The stream, made by `create_stream`.
            image: RGB uint8 (H, W, 3), sent as a JPEG; or the bytes of a JPEG, PNG or WebP, sent as they are.
            id: Your name for the frame, given back in the result.
            timestamp: Seconds, given back in the result.
            quality: Of the JPEG, 1 to 100.

        Raises:
            SourceError: The array is no image.
            ApiError: There is no such stream (404), or the image can't be decoded (422) or is too large (413).
        """
        call = await asyncio.to_thread(calls.infer, stream_id, image, id, timestamp, quality)
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
        mode: Mode | None = None,
        masks: Masks | None = None,
        resolution: Resolution | None = None,
        codec: Codec = "image",
        in_flight: int = 2,
        quality: int = 90,
        on_error: OnError = "raise",
        decode: bool = False,
        stream_id: str | None = None,
        reconnect: Reconnect | float | None = reconnecting.DEFAULT,
    ) -> AsyncResultStream:
        """Send a source's frames over a WebSocket and iterate over their results, in order.

        The options, and what is raised, are those of `Client.stream`. The connection is made at the first result, or
        on entering `async with`. The source is read, and frames are compressed, in threads.

        Args:
            source: What `open_source` takes, or what it gave.
            model: As in `Client.stream`, and so are all that follow.
            interval: Frames.
            schedule: `fixed` or `adaptive`.
            max_interval: Frames.
            mode: `lossless` or `latest`; None is `lossless`.
            masks: `png`, `rle` or `none`; None is `png`.
            resolution: Of masks, `model` or `frame`; None is `model`.
            codec: `image`, or how a file is sent as it is.
            in_flight: Frames.
            quality: Of the JPEGs, 1 to 100.
            on_error: `raise` or `skip`.
            decode: Whether to decode here too, with the codecs of files.
            stream_id: The stream's name on the server.
            reconnect: Seconds, or a `Reconnect`.

        Raises:
            ValueError: `reconnect` isn't valid.
        """
        plan = StreamPlan(
            model=model,
            interval=interval,
            schedule=schedule,
            max_interval=max_interval,
            masks=masks,
            resolution=resolution,
            mode=mode,
            codec=codec,
            in_flight=in_flight,
            quality=quality,
            on_error=on_error,
            decode=decode,
            stream_id=stream_id,
            reconnect=Reconnect.of(reconnect),
        )
        return AsyncResultStream(self.server, source, plan, self._timeout, self._headers)

    async def close(self) -> None:
        """Close the connections that are kept for the next request."""
        await self._http.aclose()

    async def _do(self, call: Call[T]) -> T:
        try:
            response = await self._http.send(call.request(self._http))
        except httpx.HTTPError as error:
            raise calls.unreachable(self.server, error) from error
        return call.read(response)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
