"""Video frames to pictures: what the decoders of packets and of containers have in common."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, cast

from av.container import InputContainer
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from keywarp.protocol import ClientId
from keywarp.server.errors import BadVideoError, DamagedVideoError
from keywarp.server.pictures import Damage, Picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PROBE: Final = {"probesize": str(2**20), "analyzeduration": "1000000", "fpsprobesize": "0"}  # bytes, microseconds
PATIENCE: Final = 300  # units in a row that may fail: a live stream may be joined long before its next key frame


class Screen:
    """What a decoder's frames become pictures on; keeps count of what fails.

    Decoders run on one thread each and without frame threading, which would hold back a frame per thread. So the delay
    is what the stream itself asks for.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self.options = {"max_pixels": str(max_pixels)}  # more is refused before anything is allocated
        self._reformatter = VideoReformatter()
        self._failures = 0
        self.used = False  # has shown a picture

    def configure(self, context: VideoCodecContext) -> None:
        """Set a decoder up, before it opens."""
        context.thread_count = 1
        context.options = self.options

    def check_size(self, context: VideoCodecContext) -> None:
        """Refuse a video whose frames are too large, as far as its decoder knows yet.

        Raises:
            BadVideoError: They are.
        """
        if context.width * context.height > self._max_pixels:
            raise BadVideoError(
                f"the video is {context.width}x{context.height}; at most {self._max_pixels} pixels are allowed"
            )

    def check_used(self) -> None:
        """Refuse a video that has ended without a picture.

        Raises:
            BadVideoError: It has.
        """
        if not self.used:  # not all decoders tell how large what they refuse is
            raise BadVideoError(
                f"the video ended without a frame that can be decoded, of at most {self._max_pixels} pixels"
            )

    def show(self, container: InputContainer, name: str) -> Iterator[Picture | Damage]:
        """Decode the first video of a container.

        Args:
            container: Just opened.
            name: What to call it.

        Raises:
            BadVideoError: It has none of a known codec, or it is too large, or too much of it can't be decoded.
            FFmpegError: The container itself can't be read on.
        """
        stream = next((s for s in container.streams.video if s.codec_context), None)
        if stream is None:
            raise BadVideoError(f"{name} without video of a known codec")
        self.check_size(stream.codec_context)  # which the container tells; not all decoders do
        self.configure(stream.codec_context)
        for packet in container.demux(stream):
            started = time.perf_counter()
            try:
                frames = packet.decode()
            except FFmpegError:
                yield from self.failed(stream.codec_context, None)
                continue
            for frame in frames:
                yield self.picture(frame, None, frame.time, started)
                started = time.perf_counter()

    def picture(self, frame: VideoFrame, id_: ClientId | None, timestamp: float | None, started: float) -> Picture:
        """Show a frame.

        Args:
            frame: The frame, in any pixel format.
            id_: The client's.
            timestamp: In seconds.
            started: When its decoding began, by `time.perf_counter`.
        """
        self.used, self._failures = True, 0
        pixels = cast("NDArray[np.uint8]", self._reformatter.reformat(frame, format="rgb24").to_ndarray())
        return Picture(pixels, id_, timestamp, time.perf_counter() - started)

    def failed(self, context: VideoCodecContext, id_: ClientId | None) -> Iterator[Damage]:
        """A unit couldn't be decoded. Before the first picture that is no news: decoding starts at a key frame.

        Raises:
            BadVideoError: The video is too large, or too many units in a row have failed.
        """
        self.check_size(context)
        self._failures += 1
        if self._failures > PATIENCE:
            raise BadVideoError(f"{PATIENCE} units of the video in a row can't be decoded")
        if self.used:
            yield Damage(DamagedVideoError("this part of the video can't be decoded"), id_)
