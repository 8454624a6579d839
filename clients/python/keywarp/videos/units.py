"""Decode the units of a video, each of which holds one picture: the interface, and the decoder on the processor."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from keywarp.images.orientation import UPRIGHT, jpeg_orientation
from keywarp.videos.orientation import orientation_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import av
    import numpy as np
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from numpy.typing import NDArray

    Unit = av.Packet[Any]

_EXPORT: Final = {"flags2": "+export_mvs"}  # makes FFmpeg's decoders give the motion vectors of each frame
# Codecs whose decoders patch up what is damaged without a word, unless they are told to stop there. The others mark
# such frames as corrupt, or can't notice.
_STOP_AT_DAMAGE: Final = frozenset({"mjpeg"})
# Codecs whose decoders patch up damaged frames, and mark them as corrupt only if they work on one thread.
PATCHED_UP: Final = frozenset(
    ("h264", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "h263", "flv1", "wmv1", "wmv2")
)
# By the rotation that PyAV gives, which doesn't tell mirrored pictures from others.
_ORIENTATIONS: Final = {-90: 6, 90: 8, -180: 3, 180: 3}
_TRANSFERS: Final = {16: "PQ", 18: "HLG"}  # of HDR video, by FFmpeg's numbers


@dataclass(frozen=True, slots=True, eq=False)
class CodecVectors:
    """The motion vectors of a frame, as FFmpeg's decoder exports them. They belong to the stored picture."""

    blocks: "NDArray[Any] | None"  # `AVMotionVector`, one for each block and reference; None if there is none
    picture: int  # FFmpeg's number of the picture type
    codec: str  # FFmpeg's name of the codec
    width: int  # of the stored picture
    height: int  # of the stored picture
    orientation: int = UPRIGHT  # how the frame was turned since

    def turned(self, orientation: int) -> "CodecVectors":
        """Return the same vectors, noting that their frame was turned by an orientation (EXIF's number)."""
        return replace(self, orientation=orientation)


class DecodedUnit(NamedTuple):
    """What a unit was decoded to."""

    pixels: "NDArray[np.uint8] | None"  # RGB (H, W, 3), C-contiguous, as stored; None if the unit can't be decoded
    pts: int | None  # of the unit
    vectors: CodecVectors | None = None  # None if they weren't asked for
    orientation: int = UPRIGHT  # by the display matrix
    interlaced: bool = False
    hdr: str | None = None  # the name of the transfer function, if it is one of HDR


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
    """Decodes on the processor with PyAV (FFmpeg)."""

    def __init__(
        self,
        context: "VideoCodecContext",
        max_pixels: int | None = None,
        *,
        vectors: bool = False,
        threads: int | None = 1,
        options: "Mapping[str, str] | None" = None,
    ) -> None:
        """Set up a decoder.

        Args:
            context: FFmpeg's codec context, not opened yet.
            max_pixels: The most pixels of a frame, or None for no limit. Larger ones are refused before anything is
                allocated.
            vectors: Whether frames come with their motion vectors, if the codec's decoder exports them.
            threads: The number of threads, or None for all that help; codecs in `PATCHED_UP` have one. Threads share
                the slices of a frame, not frames, which would hold back a frame per thread and lose some motion
                vectors. So the only delay is the one that the video's frame order requires.
            options: Further options of FFmpeg's decoder.
        """
        self._codec = context.codec.canonical_name
        context.thread_type = "SLICE"
        if self._codec in PATCHED_UP:
            context.thread_count = 1
        elif threads is not None:
            context.thread_count = threads
        self._vectors = vectors
        given = dict(options or {})
        given |= {"max_pixels": str(max_pixels)} if max_pixels is not None else {}
        given |= {"err_detect": "explode"} if self._codec in _STOP_AT_DAMAGE else {}
        context.options = given | (_EXPORT if vectors else {})
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
            if frame.is_corrupt:
                yield DecodedUnit(None, frame.pts)
            else:
                yield self._decoded(frame, unit)

    def looks(self, unit: "Unit") -> DecodedUnit:
        """Return how the frames of a video look, without their pixels.

        Args:
            unit: A unit that decoding can start with. It is decoded alone.
        """
        context = self._context
        try:
            frames = [*context.decode(unit), *context.decode(None)]
        except FFmpegError:
            frames = []
        context.flush_buffers()
        if not frames:
            return DecodedUnit(None, None)
        [frame, *_] = frames
        return DecodedUnit(
            None,
            None,
            orientation=orientation_of_frame(frame),
            interlaced=frame.interlaced_frame,
            hdr=_TRANSFERS.get(frame.color_trc),
        )

    def close(self) -> None:
        """Do nothing: FFmpeg's memory is freed with the context."""

    def _decoded(self, frame: "VideoFrame", unit: "Unit | None") -> DecodedUnit:
        pixels = cast("NDArray[np.uint8]", self._reformatter.reformat(frame, format="rgb24").to_ndarray())
        return DecodedUnit(
            pixels,
            frame.pts,
            self._vectors_of(frame) if self._vectors else None,
            jpeg_orientation(bytes(unit)) if self._codec == "mjpeg" and unit else orientation_of_frame(frame),
            frame.interlaced_frame,
            _TRANSFERS.get(frame.color_trc),
        )

    def _vectors_of(self, frame: "VideoFrame") -> CodecVectors:
        exported = _side_data(frame, "MOTION_VECTORS")
        blocks = None if exported is None else exported.to_ndarray()
        return CodecVectors(blocks, int(frame.pict_type), self._codec, frame.width, frame.height)


def orientation_of_frame(frame: "VideoFrame") -> int:
    """Return EXIF's number of the orientation of a decoded frame."""
    matrix = _side_data(frame, "DISPLAYMATRIX")
    return _ORIENTATIONS.get(frame.rotation, UPRIGHT) if matrix is None else orientation_of(bytes(matrix))


def _side_data(frame: "VideoFrame", name: str) -> Any:
    try:
        return frame.side_data.get(name)
    except ValueError:
        # PyAV fails at kinds that it doesn't know, such as EXIF (https://github.com/PyAV-Org/PyAV/pull/2392).
        return None
