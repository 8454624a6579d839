"""Writing a video file."""

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from keywarp.client.errors import DrawingError

CRF = "20"  # libx264's quality: 0 is lossless, 23 its default
PRESET = "veryfast"


class VideoWriter:
    """An H.264 MP4 file that browsers play and that can be played while it loads.

    The first picture decides the size; an odd last row or column is left out, since 4:2:0 video has none.
    """

    def __init__(self, path: Path, fps: float) -> None:
        """Make the file.

        Raises:
            DrawingError: The file can't be written.
        """
        self._fps = Fraction(fps).limit_denominator(1001)
        try:
            path.write_bytes(b"")  # FFmpeg would find out only when the first picture comes
        except OSError as error:
            raise DrawingError(f"{str(path)!r} can't be written: {error.strerror}") from error
        # The name may end in anything, so the format is said.
        self._container = av.open(path, "w", format="mp4", options={"movflags": "+faststart"})
        self._stream: VideoStream | None = None

    def write(self, image: NDArray[np.uint8]) -> None:
        """Add a picture, RGB (H, W, 3); one of another size is scaled to the first one's."""
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add_stream(self, image: NDArray[np.uint8]) -> VideoStream:
        stream = self._container.add_stream("libx264", self._fps, options={"crf": CRF, "preset": PRESET})
        stream.height, stream.width = (side & ~1 for side in image.shape[:2])
        stream.pix_fmt = "yuv420p"
        return stream
