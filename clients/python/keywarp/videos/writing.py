"""Write annotated videos to files."""

from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from keywarp.videos.errors import NoEncoderError, WritingError

ENCODER: Final = "libx264"
# Its options. The quality is 20, where 0 is lossless and 23 is the default. There are no B-frames, because the
# length that MP4 states would end too early with them where the frame rate varies.
OPTIONS = {"crf": "20", "preset": "veryfast", "bf": "0"}
CLOCK = 90_000  # ticks per second, as transport streams have them: timestamps aren't multiples of the frame rate


def check_encoder() -> None:
    """Check that video can be encoded here.

    Raises:
        NoEncoderError: FFmpeg was built without the encoder, which is under the GPL.
    """
    try:
        av.Codec(ENCODER, "w")
    except av.codec.codec.UnknownCodecError:
        raise NoEncoderError(ENCODER) from None


class VideoWriter:
    """Writes H.264 MP4 files that browsers can play, even while they load. Pictures keep their timestamps.

    The first picture decides the size. An odd last row or column is left out, since 4:2:0 video has an even size.
    """

    def __init__(self, path: Path, fps: float, *, start: float | None = None, aspect: Fraction = Fraction(1)) -> None:
        """Create the file.

        Args:
            path: The file's path.
            fps: Frames per second, for pictures without a timestamp.
            start: The timestamp, in seconds, that is the beginning of the file, or None for that of the first picture.
            aspect: The width of a pixel relative to its height.

        Raises:
            NoEncoderError: If video can't be encoded here. There is no file then.
            WritingError: If the file can't be written.
        """
        check_encoder()
        self._fps = Fraction(fps).limit_denominator(1001)
        self._start = start
        self._aspect = aspect
        self._next = 0  # in ticks: when the next picture is due if it has no timestamp
        self._earliest = 0  # in ticks: when the next picture may be shown, after the last one
        try:
            path.write_bytes(b"")  # FFmpeg would fail only at the first picture
        except OSError as error:
            raise WritingError(f"{str(path)!r} can't be written: {error.strerror}") from error
        # The format is named, since the file's name may have any suffix.
        self._container = av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"})
        self._stream: VideoStream | None = None

    def write(self, image: NDArray[np.uint8], timestamp: float | None = None) -> None:
        """Add a picture.

        Args:
            image: The picture, RGB (H, W, 3). It is scaled to the size of the first one.
            timestamp: When it is shown, in seconds; None for one frame after the picture before.

        Raises:
            WritingError: If the first picture is less than two pixels wide or high, or H.264 can't have its size.
        """
        if self._stream is None:
            self._stream = self._add_stream(image)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[: image.shape[0] & ~1, : image.shape[1] & ~1]))
        frame = frame.reformat(self._stream.width, self._stream.height, "yuv420p")
        frame.pts, frame.time_base = self._ticks(timestamp), Fraction(1, CLOCK)
        frame.duration = round(CLOCK / self._fps)
        try:
            self._container.mux(self._stream.encode(frame))
        except (av.ExternalError, av.ArgumentError) as error:
            self._stream = None
            size = f"{image.shape[1]}x{image.shape[0]}"
            raise WritingError(f"pictures of {size} pixels can't be written as H.264: {error.strerror}") from error

    def close(self) -> None:
        """Finish the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()

    def _ticks(self, timestamp: float | None) -> int:
        if timestamp is not None and self._start is None:
            self._start = timestamp - self._next / CLOCK
        due = self._next if timestamp is None else round((timestamp - (self._start or 0)) * CLOCK)
        ticks = max(due, self._earliest)
        self._earliest, self._next = ticks + 1, ticks + round(CLOCK / self._fps)
        return ticks

    def _add_stream(self, image: NDArray[np.uint8]) -> VideoStream:
        if min(image.shape[:2]) < 2:
            raise WritingError(f"a video needs pictures of at least 2x2 pixels, not {image.shape[1]}x{image.shape[0]}")
        stream = self._container.add_stream(ENCODER, self._fps, options=OPTIONS)
        stream.height, stream.width = (side & ~1 for side in image.shape[:2])
        stream.pix_fmt = "yuv420p"
        stream.codec_context.sample_aspect_ratio = self._aspect
        stream.codec_context.time_base = Fraction(1, CLOCK)
        return stream
