"""Random access to a video's frames, exact whatever it is compressed with.

A frame is found by its place in the order of presentation. Its time stamp says where that is: all time stamps are read
once, without decoding, and decoding starts at the key frame before.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import av
import numpy as np

from keywarp.datasets.errors import DataError
from keywarp.datasets.images import Size
from keywarp.datasets.types import Image

_CONVERT = "convert it to MP4, or unpack it into a folder of frames"


@dataclass(frozen=True)
class _VideoIndex:
    """What can be known of a video without decoding it. Times are in its stream's time base."""

    size: Size
    times: list[int]  # of the frames, in order of presentation
    starts: list[int]  # the frames, of these, that decoding can start at
    seeks: list[int]  # the time to seek to for each of them


class VideoFile:
    """A video on disk."""

    def __init__(self, path: Path) -> None:
        """Name it.

        Args:
            path: Anything that FFmpeg reads and that has time stamps.
        """
        self.path = path

    @cached_property
    def index(self) -> _VideoIndex:
        """Its time stamps.

        Raises:
            DataError: It isn't a video, or has no time stamps.
        """
        shown: list[int] = []
        keys: list[tuple[int, int]] = []  # when key frames are shown, and where to seek for them
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                size = (stream.codec_context.height, stream.codec_context.width)
                for packet in container.demux(stream):
                    if not packet.size:  # the end
                        continue
                    if packet.pts is None:
                        raise DataError(f"{self.path} has frames without time stamps; {_CONVERT}")
                    shown.append(packet.pts)
                    if packet.is_keyframe:
                        keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
        except (av.FFmpegError, OSError, IndexError) as error:
            raise DataError(f"{self.path} is not a readable video: {error}") from error
        if not keys:
            raise DataError(f"{self.path} has no frame that decoding can start at; {_CONVERT}")
        keys.sort()
        times = sorted(time for time in shown if time >= keys[0][0])  # what is shown before can't be decoded
        place = {time: number for number, time in enumerate(times)}
        return _VideoIndex(size, times, [place[time] for time, _ in keys], [seek for _, seek in keys])

    def open(self) -> "VideoReader":
        """Read frames. What is open is closed when the reader is forgotten."""
        return VideoReader(self)


class VideoReader:
    """A video while it is read. Going forwards decodes each frame once; going backwards starts at a key frame again."""

    first = 0

    def __init__(self, video: VideoFile) -> None:
        self._path = video.path
        self._index = video.index
        self._next = -1  # the frame that `_frames` yields next; -1 before there are any
        self._frames: Iterator[av.VideoFrame] = iter(())

    @property
    def last(self) -> int:
        """The last frame's number."""
        return len(self._index.times) - 1

    def size(self, number: int) -> Size:  # noqa: ARG002 - all have the same
        """A frame's size."""
        return self._index.size

    def frame(self, number: int) -> Image:
        """A frame, (H, W, 3) RGB.

        Raises:
            DataError: There is no such frame, it can't be decoded, or the time stamps are wrong.
        """
        if not 0 <= number <= self.last:
            raise DataError(f"{self._path} has frames 0 to {self.last}, and no frame {number}")
        start = bisect_right(self._index.starts, number) - 1
        if not self._index.starts[start] <= self._next <= number:
            self._play(start)
        picture = self._advance(number)
        if picture is None:  # some containers can't seek well: decode from the beginning
            self._play(0)
            picture = self._advance(number)
        if picture is None:
            raise DataError(
                f"{self._path} can't be decoded up to frame {number} in step with its time stamps; {_CONVERT}"
            )
        return np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)

    def _play(self, start: int) -> None:
        self._next = self._index.starts[start]
        self._frames = self._decode(start)

    def _advance(self, number: int) -> av.VideoFrame | None:
        """Decode up to a frame; None when what is decoded isn't what the time stamps promise."""
        for picture in self._frames:
            if picture.pts != self._index.times[self._next]:
                break
            self._next += 1
            if self._next > number:
                return picture
        self._next = -1
        return None

    def _decode(self, start: int) -> Iterator[av.VideoFrame]:
        begin = self._index.times[self._index.starts[start]]
        try:
            with av.open(str(self._path)) as container:
                stream = container.streams.video[0]
                if start:
                    container.seek(self._index.seeks[start], stream=stream)
                for picture in container.decode(stream):
                    # what is shown before the key frame may refer to frames that were not decoded
                    if picture.pts is None or picture.pts >= begin:
                        yield picture
        except av.FFmpegError as error:
            raise DataError(f"{self._path} can't be decoded: {error}") from error
