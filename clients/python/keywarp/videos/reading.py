"""Read the pictures of a container's video, each with its time, and say what is missing between them.

Every unit (packet) of the video gets a number, which decoders carry along in place of its time stamp. So each picture
is known to come from one unit, and a unit without a picture isn't overlooked, even if the decoder doesn't complain.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keywarp.videos.choice import describe_choice
from keywarp.videos.ends import PacketSpan, missing_end
from keywarp.videos.errors import NoKeyFrameError, VideoError
from keywarp.videos.ledger import Origin
from keywarp.videos.opening import demux, is_format
from keywarp.videos.outcomes import Lost, Note, Outcome, Outcomes, Shown
from keywarp.videos.times import PictureTimes, UnitTimes
from keywarp.videos.units import CodecVectors, UnitDecoder

if TYPE_CHECKING:
    import numpy as np
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from keywarp.videos.continuity import Continuity
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


Item = Picture | Lost | Note


class VideoReader:
    """Reads the pictures of one video of a container, and reports what is missing.

    Attributes:
        pictures: Pictures so far.
        lost: Pictures so far that are damaged or missing.
    """

    def __init__(
        self,
        container: "InputContainer",
        stream: "VideoStream",
        decoder: UnitDecoder,
        continuity: "Continuity | None" = None,
        tap: "Callable[[Unit], None] | None" = None,
    ) -> None:
        """Begin with the first picture.

        Args:
            container: The container, just opened.
            stream: The video, as `choose_video` returns it.
            decoder: The decoder of its units.
            continuity: What is known of a transport stream, as `demux` takes it.
            tap: A function that is shown each packet of the video as the container gives it, or None.
        """
        self.pictures = 0
        self.lost = 0
        self._container = container
        self._stream = stream
        self._decoder = decoder
        self._continuity = continuity
        self._tap = tap
        context = stream.codec_context
        # AVI has no times at which pictures are shown: FFmpeg gives units times that rise in coding order.
        self._in_coding_order = is_format(container, "avi") and bool(context.has_b_frames)
        self._outcomes = Outcomes(context.codec.canonical_name)
        self._times = PictureTimes(stream.time_base, in_coding_order=self._in_coding_order)
        self._units = 0
        self._has_key_unit = False
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
        notes: list[Note] = []
        for packet in demux(self._container, self._stream, self._continuity, notes.append):
            yield from self._decode(packet)
        yield from self._decode(None)
        yield from self._items(self._outcomes.end(), 0.0)
        yield from notes
        if not self.pictures:
            raise self._no_pictures()
        if missing := missing_end(self._container, self._stream, self._span):
            raise VideoError(f"ends too early: {missing}")

    def _no_pictures(self) -> VideoError:
        if not self._units:
            return VideoError("has no pictures in its video")
        if not self._has_key_unit:
            return NoKeyFrameError(f"has no key frame that decoding can start with, in {self._units} packets of video")
        return VideoError(f"has no picture that can be decoded, in {self._units} packets of video")

    def _decode(self, packet: "Unit | None") -> Iterator[Item]:
        """Decode a packet, or those that were held back."""
        started = time.perf_counter()
        if packet is not None:
            if self._tap and packet.size:
                self._tap(packet)
            self._take(packet)
        for unit in self._decoder.decode(packet):
            yield from self._items(self._outcomes.decoded(unit), time.perf_counter() - started)
            started = time.perf_counter()

    def _take(self, packet: "Unit") -> None:
        """Note a unit, and number it."""
        shown = None if self._in_coding_order else packet.pts
        self._unit_times.known(packet)
        origin = Origin(shown, packet.is_discard, packet.is_corrupt, epoch=self._unit_times.epoch)
        self._outcomes.add(self._units, origin)
        if not packet.is_discard:
            self._times.add(packet.pts)
        self._span.add(packet)
        self._has_key_unit = self._has_key_unit or packet.is_keyframe
        packet.pts, packet.dts = self._units, None
        self._units += 1

    def _items(self, outcomes: Iterator[Outcome], seconds: float) -> Iterator[Item]:
        """Give pictures their times, and count."""
        for outcome in outcomes:
            match outcome:
                case Shown(number, origin, pixels, orientation, vectors):
                    self.pictures += 1
                    yield Picture(pixels, orientation, self._times.next(origin.pts), number, seconds, vectors)
                case Lost():
                    self._times.skip()
                    self.lost += 1
                    yield outcome
                case Note():
                    yield outcome
