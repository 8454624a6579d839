"""Decode a video's frames within limits. Packets, containers and sources share this part."""

import time
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from keywarp.engines import MotionVectors
from keywarp.protocol import ClientId
from keywarp.server.decode.frames import Decoded, DecodedFrame
from keywarp.server.decode.nvdec import Nvdec, NvdecDecoder
from keywarp.server.decode.units import SoftwareDecoder, UnitDecoder
from keywarp.server.errors import BadVideoError, DamagedVideoError

if TYPE_CHECKING:
    import numpy as np
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

PROBE: Final = {"probesize": str(2**20), "analyzeduration": "1000000", "fpsprobesize": "0"}  # bytes, microseconds
MAX_FAILED_UNITS: Final = 300  # in a row: a live stream may be joined long before its next key frame


class VideoDecoder:
    """Chooses the decoder of a video, refuses frames that are too large, and counts units that fail.

    Attributes:
        options: FFmpeg's options for opening a container.
        has_frame: Whether any frame has been decoded.
    """

    def __init__(self, max_pixels: int, nvdec: Nvdec | None = None, *, vectors: bool = False) -> None:
        """Set up a decoder that has decoded nothing yet.

        Args:
            max_pixels: The most pixels of a frame. Larger ones are refused before anything is allocated.
            nvdec: The GPU's decoding hardware, used for the codecs that it has, or None for the processor.
            vectors: Whether frames come with their motion vectors, if the codec's decoder exports them.
        """
        self._max_pixels = max_pixels
        self._nvdec = nvdec
        self._vectors = vectors
        self.options = {"max_pixels": str(max_pixels)}
        self._failed_units = 0  # in a row
        self.has_frame = False

    def open(self, context: "VideoCodecContext", stream: "VideoStream | None" = None) -> UnitDecoder:
        """Open the decoder of a video's units.

        Args:
            context: FFmpeg's context of the video's codec, not opened yet.
            stream: The container's stream that the units come from, or None if they don't come from a container.
        """
        if self._nvdec and context.codec.canonical_name in self._nvdec.codecs:
            return NvdecDecoder(self._nvdec, context, self._max_pixels, stream, vectors=self._vectors)
        return SoftwareDecoder(context, self._max_pixels, vectors=self._vectors)

    def check_size(self, width: int, height: int) -> None:
        """Refuse a video whose frames are too large. A size of zeros is unknown yet, and passes.

        Raises:
            BadVideoError: The frames have more pixels than allowed.
        """
        if width * height > self._max_pixels:
            raise BadVideoError(f"the video is {width}x{height}; at most {self._max_pixels} pixels are allowed")

    def check_has_frame(self) -> None:
        """Refuse a video that has ended without a frame.

        Raises:
            BadVideoError: No frame could be decoded.
        """
        if not self.has_frame:  # not all decoders report the size of frames that they refuse
            raise BadVideoError(
                f"the video ended without a frame that can be decoded and has at most {self._max_pixels} pixels"
            )

    def decode_container(self, container: "InputContainer", name: str) -> Iterator[Decoded]:
        """Decode the first video stream of a container.

        Args:
            container: The container, just opened.
            name: The container's name in error messages, with its article.

        Raises:
            BadVideoError: There is no video of a known codec, its frames are too large, or too many units in a row
                can't be decoded.
            FFmpegError: The container itself can't be read any further.
        """
        stream = next((s for s in container.streams.video if s.codec_context), None)
        if stream is None:
            raise BadVideoError(f"{name} without video of a known codec")
        # The container gives the size; not all decoders do.
        self.check_size(stream.codec_context.width, stream.codec_context.height)
        time_base = stream.time_base or Fraction(0)
        with closing(self.open(stream.codec_context, stream)) as decoder:
            for packet in container.demux(stream):
                started = time.perf_counter()
                for pixels, pts, vectors in decoder.decode(packet):
                    if pixels is None:
                        yield from self.unit_failed(decoder, None)
                        continue
                    timestamp = None if pts is None else float(pts * time_base)
                    yield self.frame(pixels, None, timestamp, started, vectors)
                    started = time.perf_counter()

    def frame(
        self,
        pixels: "NDArray[np.uint8]",
        id_: ClientId | None,
        timestamp: float | None,
        started: float,
        vectors: MotionVectors | None = None,
    ) -> DecodedFrame:
        """Make a frame of a decoded unit.

        Args:
            pixels: RGB pixels (H, W, 3).
            id_: The producer's id of the frame.
            timestamp: The frame's timestamp in seconds.
            started: The time by `time.perf_counter` at which its decoding began.
            vectors: The frame's motion vectors, or None if there are none.
        """
        self.has_frame, self._failed_units = True, 0
        return DecodedFrame(pixels, id_, timestamp, time.perf_counter() - started, vectors=vectors)

    def unit_failed(self, decoder: UnitDecoder, id_: ClientId | None) -> Iterator[DamagedVideoError]:
        """Count a unit that can't be decoded, and report it unless decoding hasn't reached its first key frame yet.

        Raises:
            BadVideoError: The frames are too large, or too many units in a row have failed.
        """
        self.check_size(*decoder.size)
        self._failed_units += 1
        if self._failed_units > MAX_FAILED_UNITS:
            raise BadVideoError(f"{MAX_FAILED_UNITS} units of the video in a row can't be decoded")
        if self.has_frame:
            yield DamagedVideoError("this part of the video can't be decoded", id_)
