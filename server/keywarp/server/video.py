"""Video to pictures by PyAV (FFmpeg): H.264 as packets or as pieces of a byte stream, and MPEG transport streams.

Decoders run on one thread each and without frame threading, which would hold back a frame per thread. So the delay is
what the stream itself asks for: none without B-frames in `packets`, one frame where units end only where the next
begins (`chunks`, MPEG-TS).
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from enum import Enum, auto
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, cast

import av
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from keywarp.protocol import ClientId, FrameHeader
from keywarp.server.errors import BadVideoError, DamagedVideoError
from keywarp.server.pictures import Damage, Picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    VideoPacket = av.Packet[Any]

PATIENCE: Final = 300  # units in a row that may fail: a live stream may be joined long before its next key frame
MAX_UNIT_BYTES: Final = 16 * 2**20  # of one access unit that is still incomplete
MAX_UNIT_CHUNKS: Final = 4096
_REORDERING: Final = 64  # units whose headers wait for their frames; H.264 reorders at most 16
_PROBE: Final = {"probesize": str(2**20), "analyzeduration": "1000000", "fpsprobesize": "0"}  # bytes, microseconds


class _Screen:
    """What a decoder's frames become pictures on; keeps count of what fails."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self.options = {"max_pixels": str(max_pixels)}  # more is refused before anything is allocated
        self._reformatter = VideoReformatter()
        self._failures = 0
        self.used = False  # has shown a picture

    def configure(self, context: VideoCodecContext) -> None:
        context.thread_count = 1
        context.options = self.options

    def picture(self, frame: VideoFrame, id_: ClientId | None, timestamp: float | None, started: float) -> Picture:
        self.used, self._failures = True, 0
        pixels = cast("NDArray[np.uint8]", self._reformatter.reformat(frame, format="rgb24").to_ndarray())
        return Picture(pixels, id_, timestamp, time.perf_counter() - started)

    def failed(self, context: VideoCodecContext, id_: ClientId | None) -> Iterator[Damage]:
        """A unit couldn't be decoded. Before the first picture that is no news: decoding starts at a key frame."""
        if context.width * context.height > self._max_pixels:
            raise BadVideoError(
                f"the video is {context.width}x{context.height}; at most {self._max_pixels} pixels are allowed"
            )
        self._failures += 1
        if self._failures > PATIENCE:
            raise BadVideoError(f"{PATIENCE} units of the video in a row can't be decoded")
        if self.used:
            yield Damage(DamagedVideoError("this part of the video can't be decoded"), id_)


class H264Decoder:
    """H.264 in Annex-B format.

    In packets, each payload is one access unit, and its frame bears its id and timestamp, whatever the order in which
    frames are shown. In chunks, a frame bears those of the chunk in which its access unit begins.
    """

    def __init__(self, max_pixels: int, *, chunks: bool) -> None:
        self._context: VideoCodecContext = av.CodecContext.create("h264", "r")
        self._screen = _Screen(max_pixels)
        self._screen.configure(self._context)
        self._chunks = chunks
        self._units = 0
        self._headers: dict[int, FrameHeader] = {}  # by the unit's number, which FFmpeg carries along as its pts
        self._starts: deque[tuple[int, FrameHeader]] = deque()  # where each chunk ends in the byte stream
        self._received = 0  # bytes
        self._parsed = 0  # bytes

    def decode(self, header: FrameHeader, payload: memoryview) -> Iterator[Picture | Damage]:
        """The frames that this payload completes."""
        if not payload:  # to FFmpeg, this means the end
            raise BadVideoError("a video message without content")
        if not self._chunks:
            yield from self._unit(av.Packet(bytes(payload)), header)
            return
        self._received += len(payload)
        self._starts.append((self._received, header))
        yield from self._parse(payload)
        if self._received - self._parsed > MAX_UNIT_BYTES or len(self._starts) > MAX_UNIT_CHUNKS:
            raise BadVideoError(f"{self._received - self._parsed} bytes without a complete H.264 access unit")

    def finish(self) -> Iterator[Picture | Damage]:
        """The frames that were held back for their order."""
        if self._chunks:
            yield from self._parse(None)
        if self._units:
            yield from self._frames(None, FrameHeader())
            if not self._screen.used:
                raise BadVideoError("the video ended without a frame that can be decoded")

    def close(self) -> None:
        """Nothing but memory to free."""

    def _parse(self, payload: memoryview | None) -> Iterator[Picture | Damage]:
        for packet in self._context.parse(payload):
            while self._starts[0][0] <= self._parsed:
                self._starts.popleft()
            header = self._starts[0][1]
            self._parsed += packet.size
            yield from self._unit(packet, header)

    def _unit(self, packet: "VideoPacket", header: FrameHeader) -> Iterator[Picture | Damage]:
        packet.pts = self._units
        self._headers[self._units] = header
        self._headers.pop(self._units - _REORDERING, None)
        self._units += 1
        yield from self._frames(packet, header)

    def _frames(self, packet: "VideoPacket | None", header: FrameHeader) -> Iterator[Picture | Damage]:
        started = time.perf_counter()
        try:
            frames = self._context.decode(packet)
        except FFmpegError as error:
            yield from self._screen.failed(self._context, header.id)
            if not self._chunks and not self._screen.used:
                raise BadVideoError(
                    "not an H.264 access unit in Annex-B format that decoding can start with "
                    "(parameter sets and a key frame)"
                ) from error
            return
        for frame in frames:
            origin = self._headers.pop(cast("int", frame.pts), header)
            yield self._screen.picture(frame, origin.id, origin.timestamp, started)
            started = time.perf_counter()


class _Turn(Enum):
    """What decoder and demuxer say to each other besides content."""

    GO_ON = auto()
    END = auto()  # of the content
    STOP = auto()  # whatever you do
    HUNGRY = auto()
    FINISHED = auto()


class _StoppedError(Exception):
    """The decoder was closed."""


class _Demuxer(threading.Thread):
    """Runs FFmpeg's demuxer, which pulls its input, as a coroutine of its decoder, which is pushed to.

    Strictly in turns: the thread runs from one turn it is given to the one event that it answers with. So there is
    never more than one payload and one picture in it, and it always waits where `STOP` reaches it.
    """

    def __init__(self, max_pixels: int) -> None:
        super().__init__(name="keywarp-mpegts", daemon=True)
        self.turns: SimpleQueue[memoryview | _Turn] = SimpleQueue()
        self.events: SimpleQueue[Picture | Damage | _Turn | Exception] = SimpleQueue()
        self._screen = _Screen(max_pixels)
        self._payload = memoryview(b"")
        self._ended = False
        self._stopped = False

    def run(self) -> None:
        self._await_turn()
        try:
            self._demux()
        except FFmpegError as error:
            self.events.put(BadVideoError(f"not an MPEG transport stream: {error.strerror}"))
        except Exception as error:  # noqa: BLE001 - raised again by the decoder
            self.events.put(error)
        else:
            self.events.put(_Turn.FINISHED)

    def read(self, size: int) -> bytes:
        """FFmpeg's input. At the end it keeps returning nothing."""
        while not self._payload and not self._ended:
            self.events.put(_Turn.HUNGRY)
            self._await_turn()
        piece, self._payload = self._payload[:size], self._payload[size:]
        return bytes(piece)

    def _demux(self) -> None:
        with av.open(self, "r", format="mpegts", options=_PROBE | self._screen.options) as container:
            stream = next((s for s in container.streams.video if s.codec_context), None)
            if stream is None:
                raise BadVideoError("the MPEG transport stream holds no video of a known codec")
            self._screen.configure(stream.codec_context)
            for packet in container.demux(stream):
                started = time.perf_counter()
                try:
                    frames = packet.decode()
                except FFmpegError:
                    for damage in self._screen.failed(stream.codec_context, None):
                        self._hand_over(damage)
                    continue
                for frame in frames:
                    self._hand_over(self._screen.picture(frame, None, frame.time, started))
                    started = time.perf_counter()
        if not self._ended:
            raise BadVideoError("the MPEG transport stream broke off")
        if not self._screen.used and not self._stopped:
            raise BadVideoError("the video ended without a frame that can be decoded")

    def _hand_over(self, event: Picture | Damage) -> None:
        if not self._stopped:
            self.events.put(event)
            self._await_turn()
        if self._stopped:  # before or now: nobody takes turns any more
            raise _StoppedError

    def _await_turn(self) -> None:
        match self.turns.get():
            case _Turn.END:
                self._ended = True
            case _Turn.STOP:
                self._ended = self._stopped = True
            case memoryview() as payload:
                self._payload = payload


class MpegTsDecoder:
    """An MPEG transport stream in pieces of any size; its first video of any codec that FFmpeg knows.

    Frames bear the container's timestamps, and no id.
    """

    def __init__(self, max_pixels: int) -> None:
        self._demuxer = _Demuxer(max_pixels)

    def decode(self, header: FrameHeader, payload: memoryview) -> Iterator[Picture | Damage]:  # noqa: ARG002
        """The frames that this payload completes."""
        if not self._demuxer.is_alive():
            self._demuxer.start()
        yield from self._run(payload)

    def finish(self) -> Iterator[Picture | Damage]:
        """The frames that were held back for their order."""
        if self._demuxer.is_alive():
            yield from self._run(_Turn.END)

    def close(self) -> None:
        """End the thread."""
        if self._demuxer.is_alive():
            self._demuxer.turns.put(_Turn.STOP)
            self._demuxer.join()

    def _run(self, turn: memoryview | _Turn) -> Iterator[Picture | Damage]:
        while True:
            self._demuxer.turns.put(turn)
            match self._demuxer.events.get():
                case _Turn():
                    return
                case Exception() as error:
                    raise error
                case event:
                    yield event
            turn = _Turn.GO_ON
