"""The options of `Client.stream`, and the source that it reads."""

from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import Final, Literal, get_args
from uuid import uuid4

from keywarp.client.errors import SourceError, SourceOptionError
from keywarp.client.frames import Frame, Source
from keywarp.client.live import NewestFrames
from keywarp.client.payloads import ImagePayloads, Payload, Payloads, open_payloads
from keywarp.client.reconnecting import Reconnect
from keywarp.client.results import ProcessedFrame
from keywarp.client.sources import SourceLike, open_source
from keywarp.client.videos import VideoSource, orientation_of_file
from keywarp.images.orientation import UPRIGHT
from keywarp.protocol import Codec, Container, Hello, PacketCodec, Result
from keywarp.videos import REORDERING

OnError = Literal["raise", "skip"]

TOLERANCE: Final = 1e-4  # seconds by which the times of one frame may differ here and there
MAX_READ: Final = 32  # frames that are read to find that of a result


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
        hello: The first message, with what had to be read off the source.
    """

    def __init__(self, source: SourceLike | Source, setup: StreamSetup) -> None:
        """Open the source. The caller closes a source that is open already.

        Raises:
            SourceError: If the source can't be opened, or isn't a file although the codec needs one.
            SourceOptionError: If an option can't be used, because the source is open already, or has no videos to
                choose from.
        """
        self.stream_id = setup.stream_id or f"client-{uuid4().hex[:16]}"
        self.error: SourceError | None = None
        self._newest: NewestFrames | None = None
        self._images: _Images | None = None
        self._lock = Lock()
        self.hello = hello = setup.hello
        codec, video, upright = hello.codec, hello.video, hello.upright is not False
        if codec not in get_args(Container):  # the video is chosen here
            self.hello = hello.model_copy(update={"video": None})
        with ExitStack() as opened:
            payloads: Payloads
            self._noted: Source | Payloads
            if codec == "image":
                if isinstance(source, Source):
                    _refuse_for_open(hello)
                else:
                    source = opened.enter_context(open_source(source, upright=upright, video=video))
                self._noted = source
                if source.live and hello.mode == "latest":
                    source = self._newest = opened.enter_context(NewestFrames(source))
                payloads = ImagePayloads(source, setup.quality)
            else:
                path = _video_file(source, codec)
                payloads = self._noted = opened.enter_context(open_payloads(path, codec, video))
                packets = codec in get_args(PacketCodec)
                if packets and upright and (orientation := orientation_of_file(path, video)) != UPRIGHT:
                    # A container's display matrix isn't in its packets. Older servers don't know the field.
                    self.hello = self.hello.model_copy(update={"orientation": orientation})
                if setup.decode:
                    images = opened.enter_context(VideoSource(path, upright=upright, video=video))
                    self._images = _Images(images, by_unit=packets)
            self._payloads = iter(payloads)
            self._opened = opened.pop_all()

    @property
    def notes(self) -> tuple[str, ...]:
        """What one should know about the source, such as that another video was left out."""
        return self._noted.notes

    @property
    def missing(self) -> int:
        """The number of frames so far that the source lacks."""
        return self._noted.missing

    @property
    def count(self) -> int | None:
        """The number of frames of the source, or None if it is unknown."""
        return self._noted.count if isinstance(self._noted, Source) else self._noted.listed

    @property
    def listed(self) -> int | None:
        """The number of frames that the index of a file lists which is sent as it is, or None if there is none."""
        return self._noted.listed if isinstance(self._noted, Payloads) else None

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
            frame = self._images.of(result.result)
        if frame is None:
            return result
        wire = result.result
        if wire.timestamp is None and frame.timestamp is not None:  # packets of AVI have none, but its pictures do
            wire = wire.model_copy(update={"timestamp": frame.timestamp})
        return replace(result, result=wire, image=frame.image)

    def close(self) -> None:
        """Close the source, if it was opened here."""
        with self._lock:
            self._opened.close()


class _Images:
    """The frames of a file that is sent undecoded, matched with results: by packet, or else by time.

    Frames and results come in the same order, but some of either may be missing. If both have no time, their numbers
    count, which include what is missing.
    """

    def __init__(self, source: VideoSource, *, by_unit: bool) -> None:
        """Begin with the first frame.

        Args:
            source: The file.
            by_unit: Whether results have the numbers of packets as their ids.
        """
        self._source = source
        self._frames = iter(source)
        self._by_unit = by_unit
        self._count = 0
        self._read: deque[tuple[int, Frame]] = deque(maxlen=MAX_READ)  # before their results, with their numbers

    def of(self, result: Result) -> Frame | None:
        """Return the frame of a result, or None if there is none."""
        for entry in tuple(self._read):
            if self._distance(*entry, result) == 0:
                while self._read.popleft() is not entry:
                    pass  # its result would have come earlier
                return entry[1]
        try:
            for frame in islice(self._frames, MAX_READ):
                number = self._count + self._source.missing  # as the server counts
                self._count += 1
                distance = self._distance(number, frame, result)
                if distance == 0:
                    self._read.clear()
                    return frame
                self._read.append((number, frame))
                if distance > 0:
                    break
        except SourceError:
            self._frames = iter(())  # `Feed.next_payload` finds the same damage and reports it
        return None

    def _distance(self, number: int, frame: Frame, result: Result) -> int:
        """Return 0 for the frame of a result, 1 for one that is surely after it, and -1 for one that may be before."""
        if self._by_unit:
            if frame.unit is None or not isinstance(result.id, int) or frame.unit == result.id:
                return 0 if frame.unit == result.id else -1
            return 1 if frame.unit > result.id + REORDERING else -1
        if frame.timestamp is None and result.timestamp is None:
            return (number > result.frame) - (number < result.frame)
        if frame.timestamp is None or result.timestamp is None:
            return -1
        apart = frame.timestamp - result.timestamp
        return 0 if abs(apart) < TOLERANCE else 1 if apart > 0 else -1


def _refuse_for_open(hello: Hello) -> None:
    for option in ("video", "upright"):
        if getattr(hello, option) is not None:
            raise SourceOptionError(option, "the source is open already: give it to `open_source`")


def _video_file(source: SourceLike | Source, codec: Codec) -> Path:
    if not isinstance(source, (str, PathLike)):
        raise SourceError(f"the codec `{codec}` needs a video file, not {type(source).__name__}")
    if not Path(source).is_file():
        raise SourceError(f"the codec `{codec}` needs a video file, but there is no file {str(source)!r}")
    return Path(source)
