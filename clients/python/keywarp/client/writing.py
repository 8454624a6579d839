"""Write annotated videos to files."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from keywarp.client.errors import DrawingError
from keywarp.client.resources import Closable

CRF = "20"  # libx264's quality; 0 is lossless, 23 is its default
PRESET = "veryfast"


class VideoWriter(Closable):
    """Writes H.264 MP4 files that browsers can play, even while they load.

    The first picture decides the size. An odd last row or column is left out, since 4:2:0 video has an even size.
    """

    def __init__(self, path: Path, fps: float) -> None:
        """Create the file.

        Args:
            path: The file's path.
            fps: Frames per second.

        Raises:
            DrawingError: If the file can't be written.
        """
        self._fps = Fraction(fps).limit_denominator(1001)
        try:
            path.write_bytes(b"")  # FFmpeg would fail only at the first picture
        except OSError as error:
            raise DrawingError(f"{str(path)!r} can't be written: {error.strerror}") from error
        # The format is named, since the file's name may have any suffix.
        self._container = av.open(path, "w", format="mp4", options={"movflags": "+faststart"})
        self._stream: VideoStream | None = None

    def write(self, image: NDArray[np.uint8]) -> None:
        """Add a picture, RGB (H, W, 3). It is scaled to the size of the first one."""
        if self._stream is None:
            self._stream = self._add_stream(image)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[: image.shape[0] & ~1, : image.shape[1] & ~1]))
        frame = frame.reformat(self._stream.width, self._stream.height, "yuv420p")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()

    def _add_stream(self, image: NDArray[np.uint8]) -> VideoStream:
        stream = self._container.add_stream("libx264", self._fps, options={"crf": CRF, "preset": PRESET})
        stream.height, stream.width = (side & ~1 for side in image.shape[:2])
        stream.pix_fmt = "yuv420p"
        return stream
