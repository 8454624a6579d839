"""Units of a video, one picture's data each, to frames: where it is settled what decodes them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

if TYPE_CHECKING:
    import av
    import numpy as np
    from av.video.codeccontext import VideoCodecContext
    from numpy.typing import NDArray

    Unit = av.Packet[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame of a video."""

    pixels: "NDArray[np.uint8]"  # (H, W, 3), RGB, C-contiguous
    pts: int | None  # of the unit that it comes from


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A unit that can't be decoded; what follows may be."""

    pts: int | None


class UnitDecoder(Protocol):
    """Decodes the units of one video, given in coding order, to frames in the order in which they are shown."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels, as far as they are known yet; else zeros."""
        ...

    def decode(self, unit: "Unit | None") -> Iterator[Frame | Undecodable]:
        """The frames that a unit completes, lazily; none or an empty one: those that were held back."""
        ...

    def close(self) -> None:
        """Free everything; may be called more than once."""
        ...


class SoftwareDecoder:
    """PyAV (FFmpeg), on the processor.

    On one thread each and without frame threading, which would hold back a frame per thread. So the delay is what the
    stream itself asks for.
    """

    def __init__(self, context: "VideoCodecContext", max_pixels: int) -> None:
        """Set a decoder up.

        Args:
            context: FFmpeg's; not opened yet.
            max_pixels: Of a frame; more is refused before anything is allocated.
        """
        context.thread_count = 1
        context.options = {"max_pixels": str(max_pixels)}
        self._context = context
        self._reformatter = VideoReformatter()

    @property
    def size(self) -> tuple[int, int]:
        """As FFmpeg knows it."""
        return self._context.width, self._context.height

    def decode(self, unit: "Unit | None") -> Iterator[Frame | Undecodable]:
        """As `UnitDecoder`."""
        try:
            frames = self._context.decode(unit)
        except FFmpegError:
            yield Undecodable(unit.pts if unit else None)
            return
        for frame in frames:
            pixels = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
            yield Frame(cast("NDArray[np.uint8]", pixels), frame.pts)

    def close(self) -> None:
        """Nothing but memory to free."""
