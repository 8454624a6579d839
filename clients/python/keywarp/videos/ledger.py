"""Match pictures with the units (packets) that they come from, to find those that never become one."""

from typing import Final, NamedTuple

from keywarp.videos.errors import VideoError
from keywarp.videos.units import DecodedUnit

MAX_FAILED_UNITS: Final = 300  # in a row: a live stream may be joined long before its next key frame
# Codecs each of whose units is shown as a picture. Others have units that show nothing, or several pictures.
ONE_PICTURE_PER_UNIT: Final = frozenset({"h264", "hevc", "av1", "mjpeg", "gif"})
# Units after which a picture must have come, if each holds a frame. x264 and x265 put at most 16 B-frames in a row
# (`X264_BFRAME_MAX`, `X265_BFRAME_MAX`), which come after a frame and are shown before it. A decoder keeps at most 16
# frames to be shown later (`MaxDpbFrames`, H.264 A.3.1; `maxDpbSize`, HEVC A.4.2). Add the frame itself and the next.
REORDERING: Final = 16 + 16 + 2
REMEMBERED: Final = 2 * REORDERING  # units that may still become a picture, if each holds only one field of a frame


class Origin(NamedTuple):
    """What is known about a unit before it is decoded."""

    pts: int | None  # in the stream's time base
    discard: bool = False  # whether it is only needed to decode others
    damaged: bool = False  # whether the container says that something is missing in it or next to it
    time: float | None = None  # in seconds, by the client; without `pts`, it only tells what leads the first picture
    epoch: int = 0  # how often the container's times have started over before it


class UnitLedger:
    """Matches pictures with the units that they come from, to find those that never become one.

    All methods but `add` raise a `VideoError` if more than `MAX_FAILED_UNITS` in a row are lost.

    Attributes:
        has_picture: Whether there was any picture.
        left_out: Units before the first picture that decoding can't start with.
        leading: Units after that of the first picture that would be shown before it, but need what was before: they
            follow the key frame of an open group of pictures at which a video was cut.
    """

    def __init__(self, codec: str) -> None:
        """Begin with the first unit.

        Args:
            codec: FFmpeg's name of the codec.
        """
        self.has_picture = False
        self.left_out = 0
        self.leading = 0
        self._complete = codec in ONE_PICTURE_PER_UNIT
        self._waiting: dict[int, Origin] = {}  # by the unit's number
        self._failed = 0  # in a row
        self._first: tuple[int, Origin] | None = None  # the unit of the first picture

    def add(self, number: int, origin: Origin) -> None:
        """Note a unit that is going to be decoded."""
        self._waiting[number] = origin
        if not self._complete:
            self._waiting.pop(number - REMEMBERED, None)

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
        self._first = self._first or (number, origin)
        self.has_picture, self._failed = True, 0
        return number, origin, lost

    def failed(self, unit: DecodedUnit) -> list[int]:
        """Take a unit that can't be decoded, and return the numbers of lost units."""
        number = self._number(unit)
        return self._drop([number] if number in self._waiting else [], known=True)

    def overdue(self) -> list[int]:
        """Return the numbers of units whose pictures should have come by now, whatever their order."""
        newest = max(self._waiting, default=0)
        return self._drop([number for number in self._waiting if number <= newest - REORDERING])

    def end(self) -> list[int]:
        """Return the numbers of units that never became a picture, at the end of the video."""
        return self._drop([*self._waiting])

    def _number(self, unit: DecodedUnit) -> int:
        return min(self._waiting, default=0) if unit.pts is None else unit.pts

    def _is_late(self, number: int, origin: Origin, shown: int, shown_origin: Origin) -> bool:
        """Return whether a unit should have been shown before another, by their times or else by their order."""
        if origin.pts is not None and shown_origin.pts is not None and origin.epoch == shown_origin.epoch:
            return origin.pts < shown_origin.pts
        return number <= shown - REORDERING

    def _leads(self, number: int, origin: Origin) -> bool:
        """Return whether a unit should have been shown before the first picture, although it comes after it.

        Matroska has no times before 0, so that such units have none there.
        """
        if self._first is None or self._first[1].epoch != origin.epoch:
            return False
        begun, first = self._first
        (shown, start) = (origin.time, first.time) if first.pts is None else (origin.pts, first.pts)
        if start is None:
            return False
        return number <= begun + REORDERING if shown is None else shown < start

    def _drop(self, units: list[int], *, known: bool = False) -> list[int]:
        """Forget units, and return those that are lost: all that should have been shown after the first picture.

        Args:
            units: The units' numbers.
            known: Whether the decoder says that they are lost.
        """
        if not (self._complete or known):
            return []
        origins = [(number, self._waiting.pop(number)) for number in units]
        leading = [number for number, origin in origins if not origin.discard and self._leads(number, origin)]
        lost = [number for number, origin in origins if not origin.discard and number not in leading]
        self.leading += len(leading)
        if not self.has_picture:
            self.left_out += len(lost)
        self._failed += len(lost)
        if self._failed > MAX_FAILED_UNITS:
            raise VideoError(f"has {MAX_FAILED_UNITS} packets of video in a row that can't be decoded")
        return lost if self.has_picture else []
