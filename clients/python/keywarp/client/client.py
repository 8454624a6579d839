"""The synchronous client."""

import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

from keywarp.client import connecting, reconnecting, rest
from keywarp.client.connecting import DEFAULT_SERVER, DEFAULT_TIMEOUT, LOAD_TIMEOUT, READY_POLL
from keywarp.client.errors import ApiError
from keywarp.client.feed import OnError, StreamSetup
from keywarp.client.frames import Source
from keywarp.client.reconnecting import Reconnect
from keywarp.client.resources import Closable
from keywarp.client.results import ProcessedFrame
from keywarp.client.sources import SourceLike
from keywarp.client.streaming import ResultStream
from keywarp.client.watching import Watch
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


class Client(Closable):
    """A client of one Keywarp server, over REST and WebSocket.

    Example:
        >>> with Client("http://127.0.0.1:8080") as client:
        ...     for result in client.stream("street.mp4"):
        ...         print(result.frame, result.kind, result.latency)
    """

    def __init__(
        self, server: str = DEFAULT_SERVER, timeout: float = DEFAULT_TIMEOUT, api_key: str | None = None
    ) -> None:
        """Prepare a client. The first request connects.

        Args:
            server: The server's address, which begins with http:// or https://.
            timeout: Seconds that a response may take.
            api_key: An API key, if the server needs one. None stands for the environment variable `KEYWARP_API_KEY`,
                if it is set.

        Raises:
            ValueError: If the address isn't valid.
        """
        self.server = connecting.check_server(server)
        self._timeout = timeout
        self._headers = connecting.authorization(api_key, server)
        self._http = httpx.Client(base_url=self.server, timeout=timeout, headers=self._headers)

    def wait_until_ready(self, seconds: float = LOAD_TIMEOUT) -> None:
        """Wait while the server loads its models, right after its start.

        Args:
            seconds: The longest time to wait.

        Raises:
            ConnectError: If no server answers.
            ApiError: If it isn't ready after that time (status 503), or can't load its models (500).
        """
        until = time.monotonic() + seconds
        while True:
            try:
                self._do(rest.ready())
            except ApiError as error:
                if error.status != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() >= until:
                    raise
                time.sleep(READY_POLL)
            else:
                return

    def models(self) -> tuple[ModelInfo, ...]:
        """List the models of the server. The field `state` shows which are ready for streams."""
        return self._do(rest.models())

    def model(self, name: str) -> ModelInfo:
        """Show one model.

        Raises:
            ApiError: If there is no model of that name (status 404).
        """
        return self._do(rest.model(name))

    def load_model(self, name: str, *, timeout: float = LOAD_TIMEOUT) -> ModelInfo:
        """Load a bundle of the server's models folder, or load it again, and wait until the model is ready.

        Open streams keep the version that they have. New streams get the new one.

        Args:
            name: The model's name.
            timeout: Seconds to wait. The server finishes loading in any case.

        Raises:
            ApiError: If the server doesn't allow it (403), there is no such bundle (404), or it can't be loaded (422).
                In the last case the server keeps the current version.
        """
        return self._do(rest.load_model(name, timeout))

    def unload_model(self, name: str, *, force: bool = False) -> ModelInfo:
        """Unload a model. It accepts no new streams, and is freed when its open streams have ended.

        Args:
            name: The model's name.
            force: Whether to end its streams at once.

        Raises:
            ApiError: If the server doesn't allow it (403), or the model isn't loaded (404).
        """
        return self._do(rest.unload_model(name, force=force))

    def streams(self) -> tuple[StreamInfo, ...]:
        """List the streams."""
        return self._do(rest.streams())

    def fleet(self) -> FleetInfo:
        """List the streams of all servers behind one address, and which of the servers don't answer."""
        return self._do(rest.fleet())

    def stream_info(self, stream_id: str) -> StreamInfo:
        """Show one stream.

        Raises:
            ApiError: If there is no stream of that id (status 404).
        """
        return self._do(rest.stream_info(stream_id))

    def create_stream(
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

        Args:
            stream_id: The stream's id, or None for a random one.
            model: The model's name, or None for the server's default.
            interval: Frames from one key frame to the next, or None for the model's default. Frames that are dropped
                don't count.
            schedule: `fixed`, or `adaptive` to place key frames where the content changes, with `interval` as their
                mean distance. None is the server's default.
            max_interval: The most frames from one key frame to the next, with `adaptive`. None is 3 x `interval`.
            max_age: The greatest age of a key frame in seconds. If it is older, the next frame becomes a key frame.
                Ages are counted by the frames' timestamps, or by when frames without timestamps are processed. None is
                the server's default in the mode `latest`, and no limit in the mode `lossless`.
            overlap: The number of frames, from the one at which a key frame is due, that are still propagated from the
                key frame before, while the new one is computed between them. So no frame takes as long as a key frame,
                but key ages grow by so many frames, or by fewer in the mode `latest`. 0 lets key frames block. None is
                the server's default.
            max_fps: The most frames per second that are processed. Others are dropped, evenly. None is all.
            mode: The mode for clients that later stream to `stream_id`, as in `stream`. Single frames are never
                dropped.
            masks: The form of segmentation masks: `png`, `rle` or `none`. None is `png`.
            resolution: The resolution of masks: `model` or `frame`. None is `model`.
            reliability: `map` for results with a map of where they can be trusted. None is `none`.
            track: Whether objects get a `track_id` that they keep from frame to frame. None is False.
            upright: Whether frames are turned as the image or video says, or left as their pixels are stored. None is
                True.
            video: Which of the videos of a container, from 0. None is the best.
            hidden: Regions that are made black before anything sees the frames, each as corners (x, y) in shares of the
                frame's width and height.
            source: A URL (`rtsp://`, `http://`, ...) for the server to pull, or None if clients feed the stream.
            sinks: Names of the server's sinks that also get the results.
            rules: What the stream is watched by from its first frame on, as `set_rules` describes it.

        Raises:
            ApiError: If there is no such model (404), the id is taken (409), the intervals contradict each other, a
                sink is unknown or the rules don't fit the model (400), the server doesn't pull from that host (403), or
                there are too many streams (429).
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
        return self._do(rest.create_stream(options))

    def change_stream(self, stream_id: str, **changes: Any) -> StreamInfo:
        """Change options of a running stream. The next frame is a key frame if the key schedule changes.

        Args:
            stream_id: The stream's id.
            changes: The new values of `interval`, `schedule`, `max_interval`, `max_age`, `overlap`, `max_fps`, `track`,
                `hidden`, `masks`, `resolution`, `reliability`, `mode` (of a stream that clients feed, from the next
                connection on) and `source` (of a pulled one). None is the server's default, as in `create_stream`.

        Raises:
            ValueError: If there is no such option, or its value is invalid.
            ApiError: If there is no stream of that id (status 404), the intervals contradict each other (400), or a
                source is given for a stream that isn't pulled (409).
        """
        return self._do(rest.change_stream(stream_id, ChangeStream(**changes)))

    def pause_stream(self, stream_id: str) -> StreamInfo:
        """Disconnect a pulled stream from its source, and keep the stream.

        Raises:
            ApiError: If there is no stream of that id (status 404), or it isn't pulled (409).
        """
        return self._do(rest.pause_stream(stream_id))

    def resume_stream(self, stream_id: str) -> StreamInfo:
        """Pull a paused stream again.

        Raises:
            ApiError: If there is no stream of that id (status 404), or it isn't pulled (409).
        """
        return self._do(rest.resume_stream(stream_id))

    def watch(self, stream_id: str) -> Watch:
        """Iterate over the results, from now on, of a stream that the server pulls or another client feeds.

        A reader that is too slow misses some (`Watch.missed`) and delays nobody. If you leave the loop early, the
        watch ends when it is garbage-collected; a `with` statement ends it at once.

        Raises:
            ApiError: If there is no stream of that id (status 404), or it has too many subscribers (429).
            ConnectError: If no server responds, or the connection breaks.
        """
        transport = httpx.HTTPTransport(socket_options=connecting.KEEPALIVE)
        client = httpx.Client(base_url=self.server, timeout=self._timeout, headers=self._headers, transport=transport)
        return Watch(client, self.server, stream_id)

    def set_rules(self, stream_id: str, rules: Rules) -> Rules:
        """Watch a stream by zones, lines and rules, instead of those before, whose events end.

        Raises:
            ApiError: If there is no stream of that id (status 404), or its model has no such class (400).
        """
        return self._do(rest.set_rules(stream_id, rules))

    def events(self, stream_id: str | None = None, *, rule: str | None = None, limit: int = 100) -> tuple[Event, ...]:
        """List what the rules of streams reported, the newest first.

        Args:
            stream_id: The id of a stream, or None for all.
            rule: The name of a rule, or None for all.
            limit: The most events, up to 1000.
        """
        return self._do(rest.events(stream_id, rule, limit))

    def delete_stream(self, stream_id: str) -> None:
        """Delete a stream.

        Raises:
            ApiError: If there is no stream of that id (status 404).
        """
        self._do(rest.delete_stream(stream_id))

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
            stream_id: The id of a stream that `create_stream` made.
            image: An RGB uint8 array (H, W, 3), which is sent as a JPEG; or the bytes of a JPEG, PNG or WebP.
            id: Your id for the frame, which is returned in the result.
            timestamp: The frame's timestamp in seconds, which is returned in the result.
            quality: The quality of the JPEG, 1 to 100.

        Raises:
            SourceError: If the array isn't an image.
            ApiError: If there is no such stream (404), or the image can't be decoded (422) or is too large (413).
        """
        call = rest.infer(stream_id, image, id, timestamp, quality)
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
    ) -> ResultStream:
        """Send the frames of a source over a WebSocket and iterate over their results, in order.

        Frames are read only as fast as results are taken. If you leave the loop early, the connection closes when the
        stream is garbage-collected; a `with` statement closes it at once. A damaged source raises its `SourceError`
        after the results of the frames that could be read.

        Args:
            source: Anything that `open_source` accepts, or the source that it returned.
            model: The model's name, or None for the server's default.
            interval: Frames from one key frame to the next, or None for the model's default. Frames that are dropped
                don't count.
            schedule: `fixed`, or `adaptive` to place key frames where the content changes, with `interval` as their
                mean distance. None is the server's default.
            max_interval: The most frames from one key frame to the next, with `adaptive`. None is 3 x `interval`.
            max_age: The greatest age of a key frame in seconds. If it is older, the next frame becomes a key frame.
                Ages are counted by the frames' timestamps, or by when frames without timestamps are processed. None is
                the server's default in the mode `latest`, and no limit in the mode `lossless`.
            overlap: The number of frames, from the one at which a key frame is due, that are still propagated from the
                key frame before, while the new one is computed between them. So no frame takes as long as a key frame,
                but key ages grow by so many frames, or by fewer in the mode `latest`. 0 lets key frames block. None is
                the server's default.
            mode: `lossless` processes every frame. `latest` drops a frame that waits for the device when a newer one
                comes (`ResultStream.dropped` counts them), and always sends the newest frame of a live source
                (`ResultStream.unsent` counts the others). None is `lossless`.
            masks: The form of segmentation masks: `png`, `rle` (COCO's, in `result.result.segmentation.regions`) or
                `none` (areas only). `ProcessedFrame.labels` reads both forms. None is `png`. Dense maps, such as depth,
                are in the results unless it is `none`.
            resolution: The resolution of masks and dense maps: `model`, or `frame`, which is larger. None is `model`.
            reliability: `map` for results with a map of where they can be trusted, `ProcessedFrame.reliability_map`.
                None is `none`.
            track: Whether objects get a `track_id` that they keep from frame to frame. None is False.
            upright: Whether frames are turned as the image or video says, or left as their pixels are stored. None is
                True, or what `open_source` was given.
            video: Which of the videos of a file or URL, from 0. None is the best, or what `open_source` was given.
            codec: `image` sends each frame as a JPEG. `h264`, `hevc`, `vp8`, `vp9` and `av1` send a file's packets, and
                `mpegts`, `mp4` and `webm` send a file of this kind, without decoding or compressing anything again.
            in_flight: The most images that wait for their results at a time. With 1, the next frame of a live source is
                read after the result of the last one. With the other codecs the server's credit decides.
            quality: The quality of the JPEGs, 1 to 100.
            on_error: `raise` ends the stream with a `FrameError` at a frame that the server can't process. `skip`
                continues without the frame, and counts it.
            decode: Whether to decode the file here too, so that results have their images. For the codecs of files.
            stream_id: The stream's id on the server, or None for a random one.
            reconnect: How many seconds to try to connect again when the connection breaks or the server restarts, or a
                `Reconnect` with more options. The stream then continues where it was: each frame still has exactly one
                result or error, or is `dropped` (in the mode `latest`, those that were under way). A file that is sent
                as it is (`mpegts`, `mp4`, `webm`) can't continue, so a break is an error. 0 or None makes every break
                an error.

        Raises:
            SourceError: If the source can't be opened.
            SourceOptionError: If `video` is given for images or a camera, or `video` or `upright` for an open source.
            ConnectError: If no server responds, or the connection broke and could not be restored in time. It is a
                `ResumeError` if frames that were lost with the connection can't be sent again.
            StreamError: If the server refuses the stream. `keywarp.client.errors` lists the reasons.
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
        return ResultStream(self.server, source, setup, self._timeout, self._headers)

    def close(self) -> None:
        """Close the connections that are kept for the next request."""
        self._http.close()

    def _do(self, call: rest.Call[T]) -> T:
        with connecting.connection_errors(self.server):
            response = self._http.send(call.request(self._http))
        return call.read(response)
