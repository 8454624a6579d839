"""Video frames to pictures: what the decoders of packets, containers and sources have in common."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Final

from keywarp.protocol import ClientId
from keywarp.server.decode.frames import Damage, Picture
from keywarp.server.decode.nvdec import Nvdec, NvdecDecoder
from keywarp.server.decode.units import Frame, SoftwareDecoder, Undecodable, UnitDecoder
from keywarp.server.errors import BadVideoError, DamagedVideoError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

PROBE: Final = {"probesize": str(2**20), "analyzeduration": "1000000", "fpsprobesize": "0"}  # bytes, microseconds
PATIENCE: Final = 300  # units in a row that may fail: a live stream may be joined long before its next key frame


class Screen:
    """What a decoder's frames become pictures on; keeps count of what fails."""

    def __init__(self, max_pixels: int, nvdec: Nvdec | None = None) -> None:
        """Nothing is shown yet.

        Args:
            max_pixels: Of a frame; larger ones are refused.
            nvdec: What decodes where it can; None: the processor.
        """
        self._max_pixels = max_pixels
        self._nvdec = nvdec
        self.options = {"max_pixels": str(max_pixels)}  # more is refused before anything is allocated
        self._failures = 0
        self.used = False  # has shown a picture

    def decoder(self, context: "VideoCodecContext", stream: "VideoStream | None" = None) -> UnitDecoder:
        """What decodes a video.

        Args:
            context: FFmpeg's, of the video's codec; not opened yet.
            stream: Where its units come from, if they come out of a container.
        """
        if self._nvdec and context.codec.canonical_name in self._nvdec.codecs:
            return NvdecDecoder(self._nvdec, context, self._max_pixels, stream)
        return SoftwareDecoder(context, self._max_pixels)

    def check_size(self, width: int, height: int) -> None:
        """Refuse a video whose frames are too large, as far as its decoder knows yet.

        Raises:
            BadVideoError: They are.
        """
        if width * height > self._max_pixels:
            raise BadVideoError(f"the video is {width}x{height}; at most {self._max_pixels} pixels are allowed")

    def check_used(self) -> None:
        """Refuse a video that has ended without a picture.

        Raises:
            BadVideoError: It has.
        """
        if not self.used:  # not all decoders tell how large what they refuse is
            raise BadVideoError(
                f"the video ended without a frame that can be decoded, of at most {self._max_pixels} pixels"
            )

    def show(self, container: "InputContainer", name: str) -> Iterator[Picture | Damage]:
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
        # The container tells the size; not all decoders do.
        self.check_size(stream.codec_context.width, stream.codec_context.height)
        with closing(self.decoder(stream.codec_context, stream)) as decoder:
            for packet in container.demux(stream):
                started = time.perf_counter()
                for item in decoder.decode(packet):
                    if isinstance(item, Undecodable):
                        yield from self.failed(decoder, None)
                        continue
                    timestamp = None if item.pts is None else float(item.pts * stream.time_base)
                    yield self.picture(item, None, timestamp, started)
                    started = time.perf_counter()

    def picture(self, frame: Frame, id_: ClientId | None, timestamp: float | None, started: float) -> Picture:
        """Show a frame.

        Args:
            frame: The frame.
            id_: The client's.
            timestamp: In seconds.
            started: When its decoding began, by `time.perf_counter`.
        """
        self.used, self._failures = True, 0
        return Picture(frame.pixels, id_, timestamp, time.perf_counter() - started)

    def failed(self, decoder: UnitDecoder, id_: ClientId | None) -> Iterator[Damage]:
        """A unit couldn't be decoded. Before the first picture that is no news: decoding starts at a key frame.

        Raises:
            BadVideoError: The video is too large, or too many units in a row have failed.
        """
        self.check_size(*decoder.size)
        self._failures += 1
        if self._failures > PATIENCE:
            raise BadVideoError(f"{PATIENCE} units of the video in a row can't be decoded")
        if self.used:
            yield Damage(DamagedVideoError("this part of the video can't be decoded"), id_)
