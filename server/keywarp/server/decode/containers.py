"""Decode MPEG transport streams, MP4 and WebM with PyAV (FFmpeg) while they arrive.

The delay depends on the container: a unit of MPEG-TS ends only where the next one begins, and a fragment of MP4 is
decoded as a whole. An MP4 file whose index follows its content, as most programs write it, is stored until it is
complete.
"""

import threading
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from queue import SimpleQueue
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final

from av.error import FFmpegError

from keywarp.protocol import Container, FrameHeader
from keywarp.server.decode.allowed import UPLOAD_FORMATS, UPLOAD_PROTOCOLS
from keywarp.server.decode.frames import Decoded, DecodedFrame
from keywarp.server.decode.video import PROBE, VideoDecoder, VideoOptions
from keywarp.server.errors import BadVideoError, FrameRefusedError
from keywarp.videos import (
    HEAD_BYTES,
    Claims,
    Continuity,
    Extent,
    Note,
    Repeats,
    VideoError,
    describe_container,
    describe_other,
    open_container,
)

MAX_WITHOUT_FRAME: Final = 64 * 2**20  # bytes that may arrive without a frame
MAX_STORED: Final = 2 * 2**30  # bytes of an MP4 that can't be decoded before it is complete
_IN_MEMORY: Final = 16 * 2**20  # bytes of it that are stored in memory; the rest goes to disk
_MAX_START: Final = 2**20  # bytes before an MP4's index or content

_NAMES: Final[Mapping[Container, str]] = {
    "mpegts": "an MPEG transport stream",
    "mp4": "an MP4 stream",
    "webm": "a WebM stream",
}


class _Signal(Enum):
    """Messages between the decoder and its demuxing thread, besides payloads and frames."""

    CONTINUE = auto()  # to the demuxer: produce the next event
    END = auto()  # to the demuxer: no more payloads follow
    STOP = auto()  # to the demuxer: stop at once
    NEEDS_INPUT = auto()  # from the demuxer
    FINISHED = auto()  # from the demuxer


class _StoppedError(Exception):
    """The decoder was closed."""


class _Demuxer(threading.Thread):
    """Runs FFmpeg's demuxer, which pulls its input, for a decoder whose input is pushed.

    The decoder and the thread alternate: the decoder sends a payload or a signal, and waits until the thread responds
    with one event. So the thread never holds more than one payload and one frame, and `STOP` always reaches it.
    """

    def __init__(self, container: Container, video: VideoDecoder, max_stored: int) -> None:
        super().__init__(name="keywarp-demuxer", daemon=True)
        self._container = container
        self._kind = _NAMES[container].partition(" ")[2]
        self.inputs: SimpleQueue[memoryview | _Signal] = SimpleQueue()
        self.events: SimpleQueue[Decoded | _Signal | Exception] = SimpleQueue()
        self._video = video
        self._max_stored = max_stored
        self._payload = memoryview(b"")
        self.storing = False  # a file that can't be decoded before it is complete
        self._extent = Extent()
        self._claims = Claims() if container == "mp4" else None
        self._head = b""
        self._continuity = Continuity() if container == "mpegts" else None
        self._repeats = Repeats() if container == "mpegts" else None
        self._index_missing = False
        self._ended = False
        self._stopped = False

    def run(self) -> None:
        try:
            self._await_input()
            self._demux()
        except (FFmpegError, BadVideoError) as error:
            name, other = _NAMES[self._container], describe_other(self._head)
            if isinstance(error, BadVideoError) and not other:
                self.events.put(error)
                return
            what = other or describe_container(self._head)
            reason = f"the video is not {name}: it {what}" if what else f"the video is not {name}, or is damaged"
            if self._index_missing and not other:
                fault = self._extent.fault
                reason = (
                    f"the MP4 stream {fault}: its index (moov) is missing" if fault else "the MP4 has no index (moov)"
                )
            self.events.put(BadVideoError(reason))
        except Exception as error:  # noqa: BLE001 - raised again by the decoder
            self.events.put(error)
        else:
            self.events.put(_Signal.FINISHED)

    def read(self, size: int) -> bytes:
        """Give FFmpeg its next input. At the end this returns nothing, however often it is called."""
        while not self._payload and not self._ended:
            self.events.put(_Signal.NEEDS_INPUT)
            self._await_input()
        piece, self._payload = self._payload[:size], self._payload[size:]
        return bytes(piece)

    def _demux(self) -> None:
        with SpooledTemporaryFile(_IN_MEMORY) as file:
            if self._container == "mp4" and self._index_is_last():
                self._store(file)
                self._index_missing = True  # unless it can be opened
                self._decode(file)
            else:
                self._decode(self)
        if not self._ended:
            raise BadVideoError(f"the {self._kind} ends too early")
        if fault := self._extent.fault:
            raise BadVideoError(f"the {self._kind} {fault}")

    def _decode(self, file: Any) -> None:
        options = PROBE | self._video.ffmpeg
        options |= {"protocol_whitelist": UPLOAD_PROTOCOLS, "format_whitelist": UPLOAD_FORMATS[self._container]}
        with open_container(file, format=self._container, options=options) as container:
            self._index_missing = False
            for event in self._video.decode_container(container, f"the {self._kind}", self._continuity):
                self._hand_over(event)

    def _index_is_last(self) -> bool:
        """Whether an MP4's content comes before its index. Its boxes are size, type, content (ISO 14496-12)."""
        head, box = b"", 0
        try:
            while box < _MAX_START:
                while len(head) < box + 8:
                    if not (piece := self.read(_MAX_START)):
                        return False
                    head += piece
                size, kind = int.from_bytes(head[box : box + 4]), head[box + 4 : box + 8]
                if kind in (b"moov", b"mdat") or size < 8:
                    return kind == b"mdat"
                box += size
            return False
        finally:
            self._payload = memoryview(head + self._payload)  # to be read again

    def _store(self, file: IO[bytes]) -> None:
        """Write all input to a file."""
        self.storing = True
        while piece := self.read(_IN_MEMORY):
            file.write(piece)
            if file.tell() > self._max_stored:
                raise BadVideoError(
                    f"an MP4 of more than {self._max_stored} bytes must have its index in front "
                    "(ffmpeg -c copy -movflags faststart)"
                )
        self.storing = False
        file.seek(0)

    def _hand_over(self, event: Decoded) -> None:
        if not self._stopped:
            self.events.put(event)
            self._await_input()
        if self._stopped:  # before this call or during it: nobody reads events any more
            raise _StoppedError

    def _await_input(self) -> None:
        match self.inputs.get():
            case _Signal.END:
                self._ended = True
                self._payload = memoryview(self._repeats.end() if self._repeats else b"")
            case _Signal.STOP:
                self._ended = self._stopped = True
            case memoryview() as payload:
                self._payload = payload
                self._head += payload[: HEAD_BYTES - len(self._head)]
                self._extent.feed(payload)
                if self._claims:
                    try:
                        self._claims.feed(payload)
                    except VideoError as error:
                        raise BadVideoError(f"the {self._kind} {error}") from error
                if self._continuity:
                    self._continuity.feed(payload)
                if self._repeats:
                    self._payload = memoryview(self._repeats.feed(payload))


class ContainerDecoder:
    """Decodes a video of a container whose codec FFmpeg knows. Payloads are pieces of any size.

    Frames have the container's timestamps and no id.
    """

    whole_units = False

    def __init__(
        self,
        container: Container,
        options: VideoOptions,
        *,
        max_stored: int = MAX_STORED,
        max_without_frame: int = MAX_WITHOUT_FRAME,
    ) -> None:
        """Set up a demuxer.

        Args:
            container: The container's format.
            options: How its video is decoded.
            max_stored: The most bytes of an MP4 that can't be decoded before it is complete.
            max_without_frame: The most bytes that may arrive without a frame.
        """
        self._demuxer = _Demuxer(container, VideoDecoder(options), max_stored)
        self._max_without_frame = max_without_frame
        self._without_frame = 0  # bytes since the last frame

    def decode(self, header: FrameHeader, payload: memoryview) -> Iterator[Decoded]:  # noqa: ARG002
        """Decode the frames that this payload completes."""
        if not self._demuxer.is_alive():
            self._demuxer.start()
        self._without_frame += len(payload)
        for event in self._run(payload):
            self._without_frame = 0
            yield event
        if self._without_frame > self._max_without_frame and not self._demuxer.storing:
            raise BadVideoError(f"{self._without_frame} bytes of video without a frame")

    def finish(self) -> Iterator[Decoded]:
        """Decode the frames that were held back for their presentation order."""
        if self._demuxer.is_alive():
            yield from self._run(_Signal.END)

    def close(self) -> None:
        """End the thread."""
        if self._demuxer.is_alive():
            self._demuxer.inputs.put(_Signal.STOP)
            self._demuxer.join()

    def _run(self, message: memoryview | _Signal) -> Iterator[Decoded]:
        while True:
            self._demuxer.inputs.put(message)
            match self._demuxer.events.get():
                case _Signal():
                    return
                case DecodedFrame() | FrameRefusedError() | Note() as event:
                    yield event
                case error:
                    raise error
            message = _Signal.CONTINUE
