"""Write annotated videos to files."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keywarp import videos
from keywarp.client.errors import DrawingError
from keywarp.client.resources import Closable


class VideoWriter(Closable):
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
            DrawingError: If the file can't be written.
        """
        try:
            self._video = videos.VideoWriter(path, fps, start=start, aspect=aspect)
        except videos.WritingError as error:
            raise DrawingError(str(error)) from error

    def write(self, image: NDArray[np.uint8], timestamp: float | None = None) -> None:
        """Add a picture.

        Args:
            image: The picture, RGB (H, W, 3). It is scaled to the size of the first one.
            timestamp: When it is shown, in seconds; None for one frame after the picture before.

        Raises:
            DrawingError: If the first picture is less than two pixels wide or high, or H.264 can't have its size.
        """
        try:
            self._video.write(image, timestamp)
        except videos.WritingError as error:
            raise DrawingError(str(error)) from error

    def close(self) -> None:
        """Finish the file."""
        self._video.close()
