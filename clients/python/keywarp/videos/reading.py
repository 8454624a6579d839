"""Read the pictures of a container's video, each with its time, and say what is missing between them.

Every unit (packet) of the video gets a number, which decoders carry along in place of its time stamp. So each picture
is known to come from one unit, and a unit without a picture isn't overlooked, even if the decoder doesn't complain.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from keywarp.videos.choice import describe_choice, is_format
from keywarp.videos.ends import PacketSpan, missing_end
from keywarp.videos.errors import VideoError
from keywarp.videos.ledger import Origin, UnitLedger
from keywarp.videos.opening import demux
from keywarp.videos.times import PictureTimes, UnitTimes
from keywarp.videos.units import CodecVectors, DecodedUnit, UnitDecoder

if TYPE_CHECKING:
    import numpy as np
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from keywarp.videos.units import Unit


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


def leading_note(units: int) -> Note:
    """Say that a video was cut inside an open group of pictures."""
    return Note(f"it begins in the middle: {units} packets that need those before the first key frame were left out")


def left_out_note(units: int) -> Note:
    """Say that a video was joined in the middle."""
    return Note(f"it begins in the middle: {units} packets before the first key frame were left out")


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
        self._unit_times = UnitTimes()
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
        if leading := self._ledger.leading:
            yield leading_note(leading)
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
        self._unit_times.known(packet)
        origin = Origin(shown, packet.is_discard, packet.is_corrupt, epoch=self._unit_times.epoch)
        self._ledger.add(self._units, origin)
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
