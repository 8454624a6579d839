"""What a call of `stream` asks for, and the source that it opens."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from keywarp.client.errors import SourceError
from keywarp.client.frames import Frame, Source
from keywarp.client.live import NewestFrames
from keywarp.client.payloads import ImagePayloads, Payload, Payloads, open_payloads
from keywarp.client.reconnecting import Reconnect
from keywarp.client.results import ProcessedFrame
from keywarp.client.sources import SourceLike, open_source
from keywarp.client.videos import VideoSource
from keywarp.protocol import Codec, Hello, Masks, Mode, Resolution, Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator

OnError = Literal["raise", "skip"]


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """How a source is streamed: the options of `Client.stream`, which explains them."""

    model: str | None
    interval: int | None
    schedule: Schedule | None
    max_interval: int | None
    mode: Mode | None
    masks: Masks | None
    resolution: Resolution | None
    codec: Codec
    in_flight: int
    quality: int
    on_error: OnError
    decode: bool
    stream_id: str | None
    reconnect: Reconnect

    def hello(self) -> Hello:
        """Make the first message."""
        return Hello(
            model=self.model,
            interval=self.interval,
            schedule=self.schedule,
            max_interval=self.max_interval,
            mode=self.mode,
            masks=self.masks,
            resolution=self.resolution,
            codec=self.codec,
        )


class Feed:
    """An opened source: what is sent of it, and the images that belong to the results.

    Threads may share it: a cancelled reader is waited for before the source is closed under it.

    Attributes:
        stream_id: The stream's name on the server.
        fault: Why the source ended before its time, once it did.
    """

    def __init__(self, source: SourceLike | Source, plan: StreamPlan) -> None:
        """Open the source; one that is open already stays the caller's to close.

        Raises:
            SourceError: It can't be opened, or the codec wants a file and it isn't one.
        """
        self.stream_id = plan.stream_id or f"client-{uuid4().hex[:16]}"
        self.fault: SourceError | None = None
        self._newest: NewestFrames | None = None
        self._images: Iterator[Frame] | None = None
        self._next_image = 0
        self._lock = Lock()
        with ExitStack() as opened:
            payloads: Payloads
            if plan.codec == "image":
                if not isinstance(source, Source):
                    source = opened.enter_context(open_source(source))
                if source.live and plan.mode == "latest":
                    source = self._newest = opened.enter_context(NewestFrames(source))
                payloads = ImagePayloads(source, plan.quality)
            else:
                path = _video_file(source, plan.codec)
                payloads = open_payloads(path, plan.codec)
                opened.callback(payloads.close)
                if plan.decode:
                    self._images = iter(opened.enter_context(VideoSource(path)))
            self._payloads = iter(payloads)
            self._opened = opened.pop_all()

    @property
    def unsent(self) -> int:
        """Frames so far of a live source that a newer one replaced before they were sent."""
        return self._newest.unsent if self._newest else 0

    def next_payload(self) -> Payload | None:
        """Read the next payload; None at the end, which may be `fault`."""
        with self._lock:
            try:
                return next(self._payloads, None)
            except SourceError as error:
                self.fault = error
                return None

    def with_image(self, result: ProcessedFrame) -> ProcessedFrame:
        """Add the image to a result whose frame was sent undecoded, if that was asked for."""
        if self._images is None:
            return result
        with self._lock:
            try:
                for frame in self._images:
                    self._next_image += 1
                    if self._next_image > result.frame:
                        return replace(result, image=frame.image)
            except SourceError:
                self._images = None  # `next_payload` meets the same damage, and reports it
            return result

    def close(self) -> None:
        """Let the source go."""
        with self._lock:
            self._opened.close()


def _video_file(source: SourceLike | Source, codec: Codec) -> Path:
    if not isinstance(source, (str, PathLike)):
        raise SourceError(f"the codec `{codec}` sends a video file as it is, not {type(source).__name__}")
    if not Path(source).is_file():
        raise SourceError(f"the codec `{codec}` sends a video file as it is, and there is no file {str(source)!r}")
    return Path(source)
