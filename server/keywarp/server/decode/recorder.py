"""Keep the last seconds of a video as its source sent them, and cut clips from them without coding them anew."""

import io
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import av
from av.error import FFmpegError

if TYPE_CHECKING:
    from av.video.stream import VideoStream


log = logging.getLogger(__name__)

MAX_BYTES: Final = 32 * 2**20  # of one stream's packets; beyond it the oldest are forgotten
MAX_REQUESTS: Final = 16  # clips of one stream that wait for their end


class _Kept(NamedTuple):
    """A packet of the video."""

    data: bytes
    pts: int | None
    dts: int | None
    seconds: float
    is_key: bool


@dataclass(slots=True)
class _Request:
    """A clip that waits for its end."""

    first: float  # seconds of the video from which it is wanted
    last: float
    done: Callable[[bytes], object]


class Recorder:
    """The last packets of one stream's video. A decoder's thread adds them; clips may be asked for on any thread."""

    def __init__(self, before: float, after: float) -> None:
        """Keep nothing yet.

        Args:
            before: The seconds of a clip before the moment it is asked for. It begins at the key frame before that.
            after: The seconds after that moment.
        """
        self._before, self._after = before, after
        self._packets: deque[_Kept] = deque()
        self._bytes = 0
        self._newest = 0.0  # seconds
        self._requests: list[_Request] = []
        self._lock = threading.Lock()
        self._stream: VideoStream | None = None  # that is recorded; used on the decoder's thread only

    def resize(self, before: float, after: float) -> None:
        """Let the clips that are asked for from now on have other lengths."""
        with self._lock:
            self._before, self._after = before, after

    def request(self, done: Callable[[bytes], object]) -> bool:
        """Ask for a clip of now.

        Args:
            done: Gets it as an MP4 file, on the decoder's thread; never, if MP4 can't hold the video.

        Returns:
            Whether there will be one: not if nothing is recorded, or too many clips are being made already.
        """
        with self._lock:
            if not self._packets or len(self._requests) >= MAX_REQUESTS:
                return False
            self._requests.append(_Request(self._newest - self._before, self._newest + self._after, done))
            return True

    @contextmanager
    def recording(self, stream: "VideoStream") -> "Iterator[Callable[[av.Packet[Any]], None]]":
        """Keep a video's packets during the block. The clips that wait for their end are finished with it.

        Args:
            stream: The video, whose container must stay open until `finish`.

        Yields:
            The function that keeps a packet.
        """
        self._stream = stream
        try:
            yield self._add
        finally:
            self.finish()

    def _add(self, unit: "av.Packet[Any]") -> None:
        """Keep a packet, and finish the clips that end with it."""
        stamp = unit.dts if unit.dts is not None else unit.pts
        with self._lock:
            if stamp is not None and unit.time_base:
                self._newest = float(stamp * unit.time_base)
            self._packets.append(_Kept(bytes(unit), unit.pts, unit.dts, self._newest, unit.is_keyframe))
            self._bytes += unit.size
            self._forget()
            due = [one for one in self._requests if one.last <= self._newest]
            self._requests = [one for one in self._requests if one.last > self._newest]
        for one in due:
            self._cut(one)

    def finish(self) -> None:
        """Finish all clips, because the video has ended or breaks off. Call it before its container is closed."""
        with self._lock:
            due, self._requests = self._requests, []
        for one in due:
            self._cut(one)
        self._stream = None
        with self._lock:
            self._packets.clear()
            self._bytes = 0

    def _forget(self) -> None:
        """Forget whole groups of pictures that no clip needs, and those beyond the limit."""
        needed = min([self._newest - self._before, *(one.first for one in self._requests)])
        while True:
            second = next((i for i, one in enumerate(self._packets) if i and one.is_key), None)
            if second is None or (self._packets[second].seconds > needed and self._bytes <= MAX_BYTES):
                break
            for _ in range(second):
                self._bytes -= len(self._packets.popleft().data)
        if self._bytes > 2 * MAX_BYTES:  # a group that doesn't end
            self._packets.clear()
            self._bytes = 0

    def _cut(self, request: _Request) -> None:
        stream = self._stream
        with self._lock:
            packets = [*self._packets]
        starts = [i for i, one in enumerate(packets) if one.is_key and one.seconds <= request.first]
        first = starts[-1] if starts else next((i for i, one in enumerate(packets) if one.is_key), None)
        if first is None or stream is None:
            return
        try:
            clip = _mux(packets[first:], stream)
        except (FFmpegError, ValueError) as error:
            log.warning("a clip of %s can't be written: %s", stream.codec_context.name, error)
        else:
            request.done(clip)


def _mux(packets: list[_Kept], stream: "VideoStream") -> bytes:
    """Write packets to an MP4 file whose time starts at 0.

    Raises:
        FFmpegError, ValueError: MP4 can't hold the video, or its times make no sense.
    """
    file, base = io.BytesIO(), stream.time_base or Fraction(1, 90_000)
    stamps = [*_times(packets)]
    start = min(pts for pts, _ in stamps)
    with av.open(file, "w", format="mp4") as container:
        copy = container.add_stream_from_template(stream)
        for kept, (pts, dts) in zip(packets, stamps, strict=True):
            packet = av.Packet(kept.data)
            packet.time_base = base
            packet.pts, packet.dts = pts - start, dts - start
            packet.is_keyframe = kept.is_key
            packet.stream = copy
            container.mux(packet)
    return file.getvalue()


def _times(packets: list[_Kept]) -> Iterator[tuple[int, int]]:
    """Yield presentation and decoding times. RTSP gives the first packets none, so they are counted back.

    Raises:
        ValueError: No packet has times.
    """
    known = [(i, one.dts) for i, one in enumerate(packets) if one.dts is not None]
    shown = [one.pts for one in packets if one.pts is not None]
    if not known or not shown:
        raise ValueError("its packets have no times")
    steps = [(later - dts) / (j - i) for (i, dts), (j, later) in pairwise(known)]
    step = max(1, round(median(steps))) if steps else 1
    first, dts = known[0]
    dts -= (first + 1) * step
    for i, one in enumerate(packets):
        dts = max(dts + 1, one.dts) if one.dts is not None else dts + step
        pts = one.pts if one.pts is not None else (min(shown) - step if i == 0 else dts)
        yield max(pts, dts), dts
