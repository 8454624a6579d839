"""The options of `Client.stream`, and the source that it reads."""

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
from keywarp.protocol import Codec, Hello

if TYPE_CHECKING:
    from collections.abc import Iterator

OnError = Literal["raise", "skip"]


@dataclass(frozen=True, slots=True)
class StreamSetup:
    """How a source is streamed. `Client.stream` explains the options."""

    hello: Hello  # the options that concern the server
    in_flight: int
    quality: int
    on_error: OnError
    decode: bool
    stream_id: str | None
    reconnect: Reconnect


class Feed:
    """An open source, with the payloads to send and the images that belong to the results.

    Threads may share it: `close` waits for a thread that is reading.

    Attributes:
        stream_id: The stream's id on the server.
        error: Why the source ended early, or None.
    """

    def __init__(self, source: SourceLike | Source, setup: StreamSetup) -> None:
        """Open the source. The caller closes a source that is open already.

        Raises:
            SourceError: If the source can't be opened, or isn't a file although the codec needs one.
        """
        self.stream_id = setup.stream_id or f"client-{uuid4().hex[:16]}"
        self.error: SourceError | None = None
        self._newest: NewestFrames | None = None
        self._images: Iterator[Frame] | None = None
        self._next_image = 0
        self._lock = Lock()
        codec = setup.hello.codec
        with ExitStack() as opened:
            payloads: Payloads
            if codec == "image":
                if not isinstance(source, Source):
                    source = opened.enter_context(open_source(source, upright=setup.hello.upright is not False))
                if source.live and setup.hello.mode == "latest":
                    source = self._newest = opened.enter_context(NewestFrames(source))
                payloads = ImagePayloads(source, setup.quality)
            else:
                path = _video_file(source, codec)
                payloads = opened.enter_context(open_payloads(path, codec))
                if setup.decode:
                    self._images = iter(opened.enter_context(VideoSource(path)))
            self._payloads = iter(payloads)
            self._opened = opened.pop_all()

    @property
    def unsent(self) -> int:
        """The number of frames of a live source so far that a newer one replaced before they were sent."""
        return self._newest.unsent if self._newest else 0

    def next_payload(self) -> Payload | None:
        """Read the next payload, or None at the end. If the source is damaged, `error` is then set."""
        with self._lock:
            try:
                return next(self._payloads, None)
            except SourceError as error:
                self.error = error
                return None

    def with_image(self, result: ProcessedFrame) -> ProcessedFrame:
        """Add the image to the result of a frame that was sent undecoded, if the option `decode` asks for it."""
        if self._images is None:
            return result
        with self._lock:
            try:
                for frame in self._images:
                    self._next_image += 1
                    if self._next_image > result.frame:
                        return replace(result, image=frame.image)
            except SourceError:
                self._images = None  # `next_payload` finds the same damage and reports it
            return result

    def close(self) -> None:
        """Close the source, if it was opened here."""
        with self._lock:
            self._opened.close()


def _video_file(source: SourceLike | Source, codec: Codec) -> Path:
    if not isinstance(source, (str, PathLike)):
        raise SourceError(f"the codec `{codec}` needs a video file, not {type(source).__name__}")
    if not Path(source).is_file():
        raise SourceError(f"the codec `{codec}` needs a video file, but there is no file {str(source)!r}")
    return Path(source)
