"""What becomes of the units of a video: pictures, losses, and notes about the video."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from keywarp.videos.ledger import Origin, UnitLedger
from keywarp.videos.units import CodecVectors, DecodedUnit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Shown(NamedTuple):
    """A unit became a picture that is to be shown."""

    number: int  # the unit's
    origin: Origin
    pixels: "NDArray[np.uint8]"  # RGB (H, W, 3), C-contiguous, as stored
    orientation: int  # which way up they are: `keywarp.videos.orientation`
    vectors: CodecVectors | None  # None if they weren't asked for


class Lost(NamedTuple):
    """A unit's picture is damaged or missing."""

    number: int  # the unit's
    reason: str


class Note(NamedTuple):
    """What one should know about the video."""

    text: str


Outcome = Shown | Lost | Note


def leading_note(units: int) -> Note:
    """Say that a video was cut inside an open group of pictures."""
    return Note(f"it begins in the middle: {units} packets that need those before the first key frame were left out")


def left_out_note(units: int) -> Note:
    """Say that a video was joined in the middle."""
    return Note(f"it begins in the middle: {units} packets before the first key frame were left out")


class Outcomes:
    """Tells what becomes of the units of one video.

    Give `add` each unit before the decoder gets it, and `decoded` all that the decoder returns. All methods but `add`
    raise a `VideoError` if more than `MAX_FAILED_UNITS` in a row are lost.
    """

    def __init__(self, codec: str) -> None:
        """Begin with the first unit.

        Args:
            codec: FFmpeg's name of the codec.
        """
        self._ledger = UnitLedger(codec)

    @property
    def any_shown(self) -> bool:
        """Whether the decoder has returned any picture."""
        return self._ledger.has_picture

    @property
    def left_out(self) -> int:
        """The number of units before the first picture that decoding can't start with."""
        return self._ledger.left_out

    def add(self, number: int, origin: Origin) -> None:
        """Note a unit that is going to be decoded under this number."""
        self._ledger.add(number, origin)

    def decoded(self, unit: DecodedUnit) -> Iterator[Outcome]:
        """Take what the decoder returned for a unit."""
        if unit.pixels is None:
            for number in self._ledger.failed(unit):
                yield Lost(number, "this part of the video can't be decoded")
            return
        first = not self._ledger.has_picture
        number, origin, missing = self._ledger.decoded(unit)
        if first:
            yield from self._first_notes(unit)
        yield from _missing(missing)
        if origin.discard:
            return
        if origin.damaged:  # the decoder may not have noticed
            yield Lost(number, "a part of the picture is missing")
        else:
            yield Shown(number, origin, unit.pixels, unit.orientation, unit.vectors)

    def overdue(self) -> Iterator[Lost]:
        """Give up units whose pictures should have come by now, whatever their order."""
        return _missing(self._ledger.overdue())

    def end(self) -> Iterator[Outcome]:
        """Give up the other units, at the end of the video."""
        yield from _missing(self._ledger.end())
        if leading := self._ledger.leading:
            yield leading_note(leading)

    def _first_notes(self, unit: DecodedUnit) -> Iterator[Note]:
        if left_out := self._ledger.left_out:
            yield left_out_note(left_out)
        if unit.interlaced:
            yield Note("it is interlaced, and isn't deinterlaced: moving edges look like combs")
        if unit.hdr:
            yield Note(f"it is HDR ({unit.hdr}), and isn't tone-mapped: its pictures look pale")


def _missing(numbers: list[int]) -> Iterator[Lost]:
    return (Lost(number, "a picture of the video is missing") for number in numbers)
