"""Decode a video's frames within limits. Packets, containers and sources share this part."""

from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from keywarp.engines import MotionVectors
from keywarp.engines.frames import Frame, FrameStore
from keywarp.images.orientation import UPRIGHT, turn
from keywarp.server.decode.frames import Decoded, DecodedFrame
from keywarp.server.decode.hwaccel import Hwaccel
from keywarp.server.decode.nvdec import Nvdec, NvdecDecoder
from keywarp.server.errors import BadVideoError, DamagedVideoError
from keywarp.videos import (
    CodecVectors,
    Continuity,
    Lost,
    NoKeyFrameError,
    Note,
    Picture,
    SoftwareDecoder,
    UnitDecoder,
    VideoError,
    VideoReader,
    choose_video,
)

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

    from keywarp.server.decode.recorder import Recorder

PROBE: Final = {"probesize": str(2**20), "analyzeduration": "1000000", "fpsprobesize": "0"}  # bytes, microseconds


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """How a video is decoded."""

    max_pixels: int  # of a frame; larger ones are refused before anything is allocated
    nvdec: Nvdec | None = None  # the GPU's decoding hardware, used for the codecs that it has; None: the processor
    frames: FrameStore | None = None  # keeps frames on the GPU that decodes; None: they are copied to the host
    hwaccel: Hwaccel | None = None  # hardware that FFmpeg drives, likewise; it gives no motion vectors
    vectors: bool = False  # whether frames come with their motion vectors, if the codec's decoder exports them
    upright: bool = True  # whether frames are turned as the display matrix says, or left as they are stored
    video: int | None = None  # which of a container's videos, from 0; None: the best
    orientation: int | None = None  # of bare packets (`keywarp.videos.orientation`); None: as the packets say
    recorder: "Recorder | None" = None  # keeps the packets of a container's video


class VideoDecoder:
    """Chooses the decoder of a video, refuses frames that are too large, and turns frames upright.

    Attributes:
        ffmpeg: FFmpeg's options for opening a container.
    """

    def __init__(self, options: VideoOptions) -> None:
        """Set up a decoder that has decoded nothing yet."""
        self._options = options
        self.ffmpeg = {"max_pixels": str(options.max_pixels)}

    def open(self, context: "VideoCodecContext", stream: "VideoStream | None" = None) -> UnitDecoder:
        """Open the decoder of a video's units.

        Args:
            context: FFmpeg's context of the video's codec, not opened yet.
            stream: The container's stream that the units come from, or None if they don't come from a container.
        """
        options = self._options
        if options.nvdec and context.codec.canonical_name in options.nvdec.codecs:
            vectors, store = options.vectors, options.frames
            return NvdecDecoder(options.nvdec, context, options.max_pixels, stream, vectors=vectors, store=store)
        if options.hwaccel and not options.vectors and (decoder := options.hwaccel.open(context, options.max_pixels)):
            return decoder
        return SoftwareDecoder(context, options.max_pixels, vectors=options.vectors)

    def check_size(self, width: int, height: int) -> None:
        """Refuse a video whose frames are too large. A size of zeros is unknown yet, and passes.

        Raises:
            BadVideoError: The frames have more pixels than allowed.
        """
        if width * height > self._options.max_pixels:
            raise BadVideoError(f"the video is {width}x{height}; at most {self._options.max_pixels} pixels are allowed")

    def decode_container(
        self, container: "InputContainer", name: str, continuity: Continuity | None = None
    ) -> Iterator[Decoded]:
        """Decode a video of a container.

        Args:
            container: The container, just opened.
            name: The container's name in error messages, with its article.
            continuity: What is known of a transport stream, as `keywarp.videos.demux` takes it.

        Raises:
            BadVideoError: There is no video of a known codec, its frames are too large, too many units in a row can't
                be decoded, or the container ends too early.
            FFmpegError: The container itself can't be read any further.
        """
        seen = True  # whether the frames' size is known, so that it isn't what is wrong
        try:
            stream = choose_video(container, self._options.video)
            # The container gives the size; not all decoders do.
            self.check_size(stream.codec_context.width, stream.codec_context.height)
            seen = stream.codec_context.width > 0
            recorder = self._options.recorder
            recording = recorder.recording(stream) if recorder else nullcontext()
            with recording as tap, closing(self.open(stream.codec_context, stream)) as decoder:
                for item in VideoReader(container, stream, decoder, continuity, tap):
                    match item:
                        case Picture():
                            seen = True
                            pixels, vectors = self.upright(item.pixels, item.orientation, item.vectors)
                            yield DecodedFrame(pixels, None, item.time, item.seconds, vectors=vectors)
                        case Lost():
                            self.check_size(*decoder.size)
                            yield DamagedVideoError(item.reason)
                        case Note():
                            yield item
        except VideoError as error:
            # Not all decoders report the size of frames that they refuse.
            limit = (
                ""
                if seen or isinstance(error, NoKeyFrameError)
                else f" (frames may have at most {self._options.max_pixels} pixels)"
            )
            raise BadVideoError(f"{name} {error}{limit}") from error

    def upright(
        self, pixels: Frame, orientation: int, vectors: CodecVectors | None
    ) -> tuple[Frame, MotionVectors | None]:
        """Turn a frame and its motion vectors upright, unless frames are to be left as they are stored.

        Args:
            pixels: The stored frame, RGB (H, W, 3). One on the GPU that must be turned comes to the host.
            orientation: Which way up it is by the video itself (`keywarp.videos.orientation`).
            vectors: Its motion vectors, or None if there are none.
        """
        if self._options.orientation is not None:
            orientation = self._options.orientation
        if not self._options.upright:
            orientation = UPRIGHT
        converted = None
        if vectors:
            converted = MotionVectors.from_ffmpeg(
                vectors.blocks, vectors.width, vectors.height, vectors.picture, vectors.codec
            )
        turned = pixels if orientation == UPRIGHT else turn(np.asarray(pixels), orientation)
        return turned, converted and converted.turned(orientation)
