"""Decode the units of a video, each of which holds one picture: the interface, and the decoder on the processor."""

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from keywarp.engines import MotionVectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    import av
    import numpy as np
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from numpy.typing import NDArray

    Unit = av.Packet[Any]

EXPORT: Final = {"flags2": "+export_mvs"}  # makes FFmpeg's decoders give the motion vectors of each frame


class DecodedUnit(NamedTuple):
    """What a unit was decoded to."""

    pixels: "NDArray[np.uint8] | None"  # RGB (H, W, 3), C-contiguous; None if the unit can't be decoded
    pts: int | None  # of the unit
    vectors: MotionVectors | None = None  # None if they weren't asked for, or the decoder has none


class UnitDecoder(Protocol):
    """Decodes the units of one video. Units are passed in coding order; frames are returned in presentation order."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, or zeros while they are unknown."""
        ...

    def decode(self, unit: "Unit | None") -> "Iterator[DecodedUnit]":
        """Decode lazily the frames that a unit completes; None or an empty unit flushes those that were held back."""
        ...

    def close(self) -> None:
        """Free all resources. It may be called more than once."""
        ...


class SoftwareDecoder:
    """Decodes on the processor with PyAV (FFmpeg).

    It uses one thread and no frame threading, which would hold back a frame per thread and lose some motion vectors. So
    the only delay is the one that the video's frame order requires.
    """

    def __init__(self, context: "VideoCodecContext", max_pixels: int, *, vectors: bool = False) -> None:
        """Set up a decoder.

        Args:
            context: FFmpeg's codec context, not opened yet.
            max_pixels: The most pixels of a frame. Larger ones are refused before anything is allocated.
            vectors: Whether frames come with their motion vectors, if the codec's decoder exports them.
        """
        context.thread_count = 1
        self._vectors = vectors
        context.options = {"max_pixels": str(max_pixels)} | (EXPORT if vectors else {})
        self._context = context
        self._reformatter = VideoReformatter()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as FFmpeg knows them."""
        return self._context.width, self._context.height

    def decode(self, unit: "Unit | None") -> "Iterator[DecodedUnit]":
        """Decode one unit; see `UnitDecoder.decode`."""
        try:
            frames = self._context.decode(unit)
        except FFmpegError:
            yield DecodedUnit(None, unit.pts if unit else None)
            return
        for frame in frames:
            pixels = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
            yield DecodedUnit(cast("NDArray[np.uint8]", pixels), frame.pts, self._vectors_of(frame))

    def close(self) -> None:
        """Do nothing: FFmpeg's memory is freed with the context."""

    def _vectors_of(self, frame: "VideoFrame") -> MotionVectors | None:
        if not self._vectors:
            return None
        exported = frame.side_data.get("MOTION_VECTORS")
        blocks = None if exported is None else exported.to_ndarray()
        codec = self._context.codec.canonical_name
        return MotionVectors.from_ffmpeg(blocks, frame.width, frame.height, int(frame.pict_type), codec)
