"""The client."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

from keywarp.client import calls, reconnecting
from keywarp.client.calls import DEFAULT_SERVER, DEFAULT_TIMEOUT, LOAD_TIMEOUT, Call
from keywarp.client.frames import Source
from keywarp.client.plan import OnError, StreamPlan
from keywarp.client.reconnecting import Reconnect
from keywarp.client.results import ProcessedFrame
from keywarp.client.sources import SourceLike
from keywarp.client.streaming import ResultStream
from keywarp.client.watching import Watch
from keywarp.protocol import ClientId, Codec, CreateStream, Masks, Mode, ModelInfo, Resolution, Schedule, StreamInfo

T = TypeVar("T")


class Client:
    """A Keywarp server, over REST and WebSocket.

    Example:
        >>> with Client("http://127.0.0.1:8080") as client:
        ...     for result in client.stream("street.mp4"):
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
        self._http = httpx.Client(base_url=self.server, timeout=timeout, headers=self._headers)

    def models(self) -> tuple[ModelInfo, ...]:
        """List the models of the server; `state` says which are ready for streams."""
        return self._do(calls.models())

    def model(self, name: str) -> ModelInfo:
        """Show one model.

        Raises:
            ApiError: There is none of that name (status 404).
        """
        return self._do(calls.model(name))

    def load_model(self, name: str, *, timeout: float = LOAD_TIMEOUT) -> ModelInfo:
        """Have a bundle of the server's models folder loaded, or loaded anew; wait until it is ready.

        Streams go on with the version that they have; new ones get the new one.

        Args:
            name: The model's name.
            timeout: Seconds to wait; the server finishes loading in any case.

        Raises:
            ApiError: The server doesn't let you (403), there is no such bundle (404), or it can't be loaded (422): then
                the version before it is still served.
        """
        return self._do(calls.load_model(name, timeout))

    def unload_model(self, name: str, *, force: bool = False) -> ModelInfo:
        """Have a model unloaded: it takes no new streams, and is freed when those that it has have ended.

        Args:
            name: The model's name.
            force: End its streams now.

        Raises:
            ApiError: The server doesn't let you (403), or the model isn't loaded (404).
        """
        return self._do(calls.unload_model(name, force=force))

    def streams(self) -> tuple[StreamInfo, ...]:
        """List the streams."""
        return self._do(calls.streams())

    def stream_info(self, stream_id: str) -> StreamInfo:
        """Show one stream.

        Raises:
            ApiError: There is none of that id (status 404).
        """
        return self._do(calls.stream_info(stream_id))

    def create_stream(
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
        return self._do(calls.create_stream(options))

    def pause_stream(self, stream_id: str) -> StreamInfo:
        """Let the source of a pulled stream go, and keep the stream.

        Raises:
            ApiError: There is none of that id (status 404), or it isn't pulled (409).
        """
        return self._do(calls.pause_stream(stream_id))

    def resume_stream(self, stream_id: str) -> StreamInfo:
        """Pull a paused stream again.

        Raises:
            ApiError: There is none of that id (status 404), or it isn't pulled (409).
        """
        return self._do(calls.resume_stream(stream_id))

    def watch(self, stream_id: str) -> Watch:
        """Iterate over the results of a stream that the server pulls or another client feeds, from now on.

        Whoever is too slow misses some (`Watch.missed`) and holds nobody up. Leaving the loop early ends it; use it in
        a `with` statement to have that happen at once.

        Raises:
            ApiError: There is none of that id (status 404), or it has too many watchers (429).
            ConnectError: No server answers, or the connection breaks.
        """
        transport = httpx.HTTPTransport(socket_options=calls.KEEPALIVE)
        client = httpx.Client(base_url=self.server, timeout=self._timeout, headers=self._headers, transport=transport)
        return Watch(client, self.server, stream_id)

    def delete_stream(self, stream_id: str) -> None:
        """Free a stream.

        Raises:
            ApiError: There is none of that id (status 404).
        """
        self._do(calls.delete_stream(stream_id))

    def infer(
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
        call = calls.infer(stream_id, image, id, timestamp, quality)
        sent = time.monotonic()
        result = self._do(call)
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
    ) -> ResultStream:
        """Send a source's frames over a WebSocket and iterate over their results, in order.

        Frames are read only as fast as results are taken. Leaving the loop early, for whatever reason, closes the
        connection; use the stream in a `with` statement to have that happen at once. A source that turns out damaged
        raises its `SourceError` after the results of what could be read.

        Args:
            source: What `open_source` takes, or what it gave.
            model: The model's name; None is the server's default.
            interval: Frames from one key frame to the next; None is the model's default.
            schedule: `fixed`, or `adaptive`: key frames where the content changes, `interval` being the mean; None is
                the server's default.
            max_interval: Frames from one key frame to the next at most. With `adaptive`; None is 3 x `interval`. With
                `fixed` in the mode `latest`: how far the interval may grow where frames are being dropped; None: not.
            mode: `lossless`: all frames have their turn. `latest`: a frame that waits for the device is dropped when a
                newer one comes (`ResultStream.dropped` counts); for live sources, of which then always the newest frame
                is sent (`ResultStream.unsent` counts the others). None is `lossless`.
            masks: How segmentations come: `png`, `rle` (COCO's, in `result.result.segmentation.regions`) or `none`
                (areas only); `ProcessedFrame.labels` reads either. None is `png`.
            resolution: Of masks: `model`, or `frame`, which is larger. None is `model`.
            codec: `image` sends each frame as a JPEG. `h264`, `hevc`, `vp8`, `vp9` and `av1` send a file's packets,
                `mpegts`, `mp4` and `webm` such a file, as they are: nothing is decoded or compressed again.
            in_flight: Frames that may wait for their results at a time (codec `image`; with the others the server's
                credit decides). With 1, a result of a live source is given before the next frame is read.
            quality: Of the JPEGs, 1 to 100.
            on_error: `raise` ends the stream with a `FrameError` at a frame that the server can't process; `skip` goes
                on without the frame, and counts it.
            decode: With the codecs of files: decode the file here too, so that the results have their images.
            stream_id: The stream's name on the server; None makes one up.
            reconnect: Seconds to keep trying when the connection breaks or the server restarts, or a `Reconnect` that
                says more. The stream then goes on where it was: each frame still has exactly one result or error, or is
                `dropped` (with `latest`, what was under way). A file that is sent as it is (`mpegts`, `mp4`, `webm`)
                can't go on: its break is an error. 0 or None: every break is one.

        Raises:
            SourceError: The source can't be opened.
            ConnectError: No server answers, or the connection broke and could not be made again in time; as a
                `ResumeError`, what was lost with it can't be sent again.
            StreamError: The server doesn't take the stream; `keywarp.client.errors` lists the reasons.
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
        return ResultStream(self.server, source, plan, self._timeout, self._headers)

    def close(self) -> None:
        """Close the connections that are kept for the next request."""
        self._http.close()

    def _do(self, call: Call[T]) -> T:
        try:
            response = self._http.send(call.request(self._http))
        except httpx.HTTPError as error:
            raise calls.unreachable(self.server, error) from error
        return call.read(response)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
