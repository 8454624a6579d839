"""Read the pictures of a container's video, each with its time, and say what is missing between them.

Every unit (packet) of the video gets a number, which decoders carry along in place of its time stamp. So each picture
is known to come from one unit, and a unit without a picture isn't overlooked, even if the decoder doesn't complain.
"""

import heapq
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final, NamedTuple

from keywarp.videos.choice import describe_choice, is_format
from keywarp.videos.ends import PacketSpan, missing_end
from keywarp.videos.errors import VideoError
from keywarp.videos.opening import demux
from keywarp.videos.units import CodecVectors, DecodedUnit, UnitDecoder

if TYPE_CHECKING:
    import numpy as np
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from keywarp.videos.units import Unit

MAX_FAILED_UNITS: Final = 300  # in a row: a live stream may be joined long before its next key frame
ONE_PICTURE_PER_UNIT: Final = frozenset(
    {"h264", "hevc", "av1", "mjpeg", "gif"}
)  # codecs; others have units to show nothing
REORDERING: Final = 17  # units after which a picture must have come; H.264 and HEVC reorder at most 16
_REMEMBERED: Final = 64  # units without a picture, of the other codecs


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One decoded picture."""

    pixels: "NDArray[np.uint8]"  # RGB (H, W, 3), C-contiguous, as stored
    orientation: int  # which way up it is: `keywarp.videos.orientation`
    time: float | None  # seconds, above those of all pictures before; None if it is unknown
    unit: int  # the number of its unit, from 0, in coding order
    seconds: float  # that decoding took
    vectors: CodecVectors | None = None  # None if they weren't asked for


class Lost(NamedTuple):
    """A picture that is damaged or missing."""

    reason: str


class Note(NamedTuple):
    """What one should know about the video."""

    text: str


Item = Picture | Lost | Note


class Origin(NamedTuple):
    """What is known about a unit before it is decoded."""

    pts: int | None  # in the stream's time base
    discard: bool = False  # whether it is only needed to decode others
    damaged: bool = False  # whether the container says that something is missing in it or next to it


def left_out_note(units: int) -> Note:
    """Say that a video was joined in the middle."""
    return Note(f"it begins in the middle: {units} packets before the first key frame were left out")


class UnitLedger:
    """Matches pictures with the units that they come from, to find those that never become one.

    Attributes:
        has_picture: Whether there was any picture.
        left_out: Units before the first picture that decoding can't start with.
    """

    def __init__(self, codec: str) -> None:
        """Begin with the first unit.

        Args:
            codec: FFmpeg's name of the codec.
        """
        self.has_picture = False
        self.left_out = 0
        self._complete = codec in ONE_PICTURE_PER_UNIT
        self._waiting: dict[int, Origin] = {}  # by the unit's number
        self._failed = 0  # in a row

    def add(self, number: int, origin: Origin) -> None:
        """Note a unit that is going to be decoded."""
        self._waiting[number] = origin
        if not self._complete:
            self._waiting.pop(number - _REMEMBERED, None)

    def decoded(self, unit: DecodedUnit) -> tuple[int, Origin, list[int]]:
        """Take a picture from the decoder.

        Returns:
            The unit's number, what was known about it, and the numbers of lost units before it.
        """
        number = self._number(unit)
        origin = self._waiting.pop(number, Origin(None))
        if unit.interlaced:  # a unit may be a field, and two of them a picture
            self._complete = False
        late = [waiting for waiting, other in self._waiting.items() if self._is_late(waiting, other, number, origin)]
        lost = self._drop(late)
        self.has_picture, self._failed = True, 0
        return number, origin, lost

    def failed(self, unit: DecodedUnit) -> list[int]:
        """Take a unit that can't be decoded, and return the numbers of lost units.

        Raises:
            VideoError: Too many units in a row have failed.
        """
        number = self._number(unit)
        return self._drop([number] if number in self._waiting else [], known=True)

    def overdue(self) -> list[int]:
        """Return the numbers of units whose pictures should have come by now, whatever their order."""
        return self._drop([number for number in self._waiting if number <= max(self._waiting) - REORDERING])

    def end(self) -> list[int]:
        """Return the numbers of units that never became a picture, at the end of the video."""
        return self._drop([*self._waiting])

    def _number(self, unit: DecodedUnit) -> int:
        return min(self._waiting, default=0) if unit.pts is None else unit.pts

    def _is_late(self, number: int, origin: Origin, shown: int, shown_origin: Origin) -> bool:
        """Return whether a unit should have been shown before another, by their times or else by their order."""
        if origin.pts is not None and shown_origin.pts is not None:
            return origin.pts < shown_origin.pts
        return number <= shown - REORDERING

    def _drop(self, units: list[int], *, known: bool = False) -> list[int]:
        """Forget units, and return those that are lost: all that should have been shown after the first picture.

        Args:
            units: The units' numbers.
            known: Whether the decoder says that they are lost.
        """
        if not (self._complete or known):
            return []
        lost = [number for number in units if not self._waiting.pop(number).discard]
        if not self.has_picture:
            self.left_out += len(lost)
        self._failed += len(lost)
        if self._failed > MAX_FAILED_UNITS:
            raise VideoError(f"has {MAX_FAILED_UNITS} packets of video in a row that can't be decoded")
        return lost if self.has_picture else []


class PictureTimes:
    """The times at which pictures are shown: rising, or None."""

    def __init__(self, time_base: Fraction | None, *, in_coding_order: bool = False) -> None:
        """Begin with the first picture.

        Args:
            time_base: The unit of time stamps in seconds, or None if there are none.
            in_coding_order: Whether the container's time stamps rise with the units, whatever is shown first, as in
                AVI. Sorted, they are those of the pictures.
        """
        self._time_base = time_base
        self._sorted: list[int] | None = [] if in_coding_order else None
        self._last: float | None = None

    def add(self, pts: int | None) -> None:
        """Note the time stamp of a unit that is going to be decoded."""
        if self._sorted is not None and pts is not None:
            heapq.heappush(self._sorted, pts)

    def skip(self, count: int) -> None:
        """Pass over pictures that are lost."""
        for _ in range(count):
            self._pts(None)

    def next(self, pts: int | None) -> float | None:
        """Return the time of a picture in seconds, or None if it isn't known.

        Args:
            pts: The time stamp of its unit.
        """
        pts = self._pts(pts)
        if pts is None or self._time_base is None:
            return None
        seconds = float(pts * self._time_base)
        if self._last is not None and seconds <= self._last:
            return None
        self._last = seconds
        return seconds

    def _pts(self, pts: int | None) -> int | None:
        if self._sorted is None:
            return pts
        return heapq.heappop(self._sorted) if self._sorted else None


class VideoReader:
    """Reads the pictures of one video of a container, and reports what is missing.

    Attributes:
        pictures: Pictures so far.
        lost: Pictures so far that are damaged or missing.
    """

    def __init__(self, container: "InputContainer", stream: "VideoStream", decoder: UnitDecoder) -> None:
        """Begin with the first picture.

        Args:
            container: The container, just opened.
            stream: The video, as `choose_video` returns it.
            decoder: The decoder of its units.
        """
        self.pictures = 0
        self.lost = 0
        self._container = container
        self._stream = stream
        self._decoder = decoder
        context = stream.codec_context
        # AVI has no times at which pictures are shown: FFmpeg gives units times that rise in coding order.
        self._in_coding_order = is_format(container, "avi") and bool(context.has_b_frames)
        self._ledger = UnitLedger(context.codec.canonical_name)
        self._times = PictureTimes(stream.time_base, in_coding_order=self._in_coding_order)
        self._units = 0
        self._span = PacketSpan()

    def __iter__(self) -> Iterator[Item]:
        """Decode lazily.

        Raises:
            VideoError: Too many units in a row can't be decoded, no picture can be, or the container ends before the
                last unit that its index lists. This comes after all pictures.
            FFmpegError: The container itself can't be read any further.
        """
        if choice := describe_choice(self._container, self._stream):
            yield Note(choice)
        for packet in demux(self._container, self._stream):
            yield from self._decode(packet)
        yield from self._decode(None)
        yield from self._lose(len(self._ledger.end()), "a picture of the video is missing")
        if not self.pictures:
            raise VideoError(
                f"has no key frame that decoding can start with, in {self._units} packets of video"
                if self._units
                else "has no pictures in its video"
            )
        if missing := missing_end(self._container, self._stream, self._span):
            raise VideoError(f"ends too early: {missing}")

    def _decode(self, packet: "Unit | None") -> Iterator[Item]:
        """Decode a packet, or those that were held back."""
        started = time.perf_counter()
        if packet is not None:
            self._take(packet)
        for unit in self._decoder.decode(packet):
            yield from self._items(unit, time.perf_counter() - started)
            started = time.perf_counter()

    def _take(self, packet: "Unit") -> None:
        """Note a unit, and number it."""
        shown = None if self._in_coding_order else packet.pts
        self._ledger.add(self._units, Origin(shown, packet.is_discard, packet.is_corrupt))
        if not packet.is_discard:
            self._times.add(packet.pts)
        self._span.add(packet)
        packet.pts, packet.dts = self._units, None
        self._units += 1

    def _items(self, unit: DecodedUnit, seconds: float) -> Iterator[Item]:
        if unit.pixels is None:
            yield from self._lose(len(self._ledger.failed(unit)), "this part of the video can't be decoded")
            return
        first = not self._ledger.has_picture
        number, origin, lost = self._ledger.decoded(unit)
        if first:
            yield from self._first_notes(unit)
        yield from self._lose(len(lost), "a picture of the video is missing")
        if origin.discard:
            return
        if origin.damaged:  # the decoder may not have noticed
            yield from self._lose(1, "a part of the picture is missing")
            return
        self.pictures += 1
        shown_at = self._times.next(origin.pts)
        yield Picture(unit.pixels, unit.orientation, shown_at, number, seconds, unit.vectors)

    def _lose(self, count: int, reason: str) -> Iterator[Lost]:
        self._times.skip(count)
        self.lost += count
        for _ in range(count):
            yield Lost(reason)

    def _first_notes(self, unit: DecodedUnit) -> Iterator[Note]:
        if left_out := self._ledger.left_out:
            yield left_out_note(left_out)
        if unit.interlaced:
            yield Note("it is interlaced, and isn't deinterlaced: moving edges look like combs")
        if unit.hdr:
            yield Note(f"it is HDR ({unit.hdr}), and isn't tone-mapped: its pictures look pale")
