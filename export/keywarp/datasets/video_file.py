"""Exact random access to the frames of a video, whatever its codec.

Frames are numbered in the order in which they are shown. All time stamps are read once, without decoding. They give the
time of each frame and the key frame before it, from which decoding starts.

Raw H.264 and HEVC have no time stamps, and those of AVI are in the order of decoding. Their frames can only be counted
from the beginning of the file, which is slow far from it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import av
import numpy as np

from keywarp.datasets.errors import DataError
from keywarp.datasets.images import Size
from keywarp.datasets.types import Image
from keywarp.images.orientation import turn
from keywarp.videos import (
    HEAD_BYTES,
    PATCHED_UP,
    Lost,
    Picture,
    SoftwareDecoder,
    VideoError,
    choose_video,
    demux,
    describe_other,
    file_extent,
    is_format,
    open_container,
    orientation_of_frame,
    swaps_sides,
)
from keywarp.videos import VideoReader as PictureReader

_CONVERT = "convert it to MP4, or unpack it into a folder of frames"
_Decoded = tuple[int | None, Callable[[], Image] | None]  # a frame's time, and its pixels unless it is damaged


@dataclass(frozen=True)
class _VideoIndex:
    """The facts about a video that are known without decoding it. Times are in its stream's time base."""

    size: Size
    times: list[int]  # the frames' time stamps, in the order in which they are shown
    starts: list[int]  # the numbers of the key frames, at which decoding can start
    seeks: list[int]  # the time to seek to for each of these frames
    timed: bool = True  # whether the time stamps tell frames apart; if not, a frame's time is its number


def unreadable(path: Path, error: Exception) -> DataError:
    """Return the error of a file that can't be read as a video."""
    try:
        with path.open("rb") as file:
            what = describe_other(file.read(HEAD_BYTES))
    except OSError as reason:
        what = f"can't be read: {reason.strerror}"
    if isinstance(error, VideoError):
        what = what or str(error)
    elif fault := file_extent(path):
        what = what or f"is not a readable video: it {fault}"
    return DataError(f"{path} {what or 'is not a video, or is damaged from the start'}")


class VideoFile:
    """A video on disk."""

    def __init__(self, path: Path, *, upright: bool = True, video: int | None = None) -> None:
        """Remember a video's path. The file isn't opened yet.

        Args:
            path: A file that FFmpeg can read. Without time stamps it is read from its beginning.
            upright: Whether frames are turned as the display matrix says, or left as they are stored.
            video: Which of the file's videos, from 0, or None for the best.
        """
        self.path = path
        self.upright = upright
        self.video = video

    @cached_property
    def index(self) -> _VideoIndex:
        """The time stamps and key frames, which are read when first used.

        Raises:
            DataError: If the file isn't a readable video.
        """
        shown: list[int] = []  # without packets that are only needed to decode others
        keys: list[tuple[int, int]] = []  # key frames: their time stamp and the time to seek to
        try:
            with open_container(f"file:{self.path}") as container:
                stream = choose_video(container, self.video)
                size = (stream.codec_context.height, stream.codec_context.width)
                timed = not (is_format(container, "avi") and stream.codec_context.has_b_frames)
                for count, packet in enumerate(demux(container, stream)):
                    if packet.pts is None or not timed:
                        timed, packet.pts, packet.dts = False, count, None
                    if not packet.is_discard:
                        shown.append(packet.pts)
                    if packet.is_keyframe:
                        keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
            if keys and self.upright and swaps_sides(self._orientation()):
                size = size[::-1]
        except (av.FFmpegError, VideoError, OSError) as error:
            raise unreadable(self.path, error) from error
        if cut := file_extent(self.path):
            raise DataError(f"{self.path} is cut off: it {cut}; {_CONVERT}")
        if not keys:
            raise DataError(f"{self.path} has no frame that decoding can start at; {_CONVERT}")
        if not timed:
            return _VideoIndex(size, [*range(len(shown))], [0], [0], timed=False)
        keys.sort()
        times = sorted(time for time in shown if time >= keys[0][0])  # earlier frames can't be decoded
        # A key frame that an edit list hides is decoded for the first frame after it.
        seeks = {bisect_left(times, time): seek for time, seek in reversed(keys)}
        starts = sorted(start for start in seeks if start < len(times))
        if not starts:
            raise DataError(f"{self.path} has no frames to show; {_CONVERT}")
        return _VideoIndex(size, times, starts, [seeks[start] for start in starts])

    def _orientation(self) -> int:
        """Decode the first frame to find which way up it is."""
        with open_container(f"file:{self.path}") as container:
            return orientation_of_frame(next(container.decode(choose_video(container, self.video))))

    def open(self) -> "VideoReader":
        """Return a reader of the frames. It closes its file when it is garbage-collected."""
        return VideoReader(self)


class VideoReader:
    """A reader of a video's frames.

    Reading forwards decodes each frame once. Reading backwards restarts at a key frame.
    """

    first = 0

    def __init__(self, video: VideoFile) -> None:
        self._path = video.path
        self._upright = video.upright
        self._number = video.video
        self._index = video.index
        self._next = -1  # the number of the frame that `_frames` yields next, or -1 if there is none
        self._frames: Iterator[_Decoded] = iter(())

    @property
    def last(self) -> int:
        """Return the number of the last frame."""
        return len(self._index.times) - 1

    def size(self, number: int) -> Size:  # noqa: ARG002 - all frames have the same size
        """Return the size of a frame."""
        return self._index.size

    def frame(self, number: int) -> Image:
        """Decode a frame, (H, W, 3) RGB.

        Raises:
            DataError: If there is no such frame, it can't be decoded, or the video's time stamps are wrong.
        """
        if not 0 <= number <= self.last:
            raise DataError(f"{self._path} has frames 0 to {self.last}, but no frame {number}")
        start = bisect_right(self._index.starts, number) - 1
        if not self._index.starts[start] <= self._next <= number:
            self._restart(start)
        found = self._advance(number)
        if found is None:  # seeking isn't exact in some containers: decode from the beginning
            self._restart(0)
            found = self._advance(number)
        if found is None:
            raise DataError(
                f"{self._path} can't be decoded up to frame {number} in step with its time stamps; {_CONVERT}"
            )
        _, pixels = found
        if pixels is None:
            raise DataError(f"{self._path} is damaged in frame {number}; {_CONVERT}")
        return pixels()

    def _restart(self, start: int) -> None:
        self._next = self._index.starts[start]
        self._frames = self._decode(start) if self._index.timed else self._count()

    def _advance(self, number: int) -> _Decoded | None:
        """Decode up to a frame and return it, or return None if the decoded frames don't match the time stamps."""
        for found in self._frames:
            if self._next > self.last or found[0] != self._index.times[self._next]:
                break
            self._next += 1
            if self._next > number:
                return found
        self._next = -1
        return None

    def _turned(self, pixels: Image, orientation: int) -> Image:
        return turn(pixels, orientation) if self._upright else pixels

    def _pixels(self, picture: av.VideoFrame) -> Image:
        return self._turned(np.asarray(picture.to_ndarray(format="rgb24"), np.uint8), orientation_of_frame(picture))

    def _count(self) -> Iterator[_Decoded]:
        """Decode from the beginning, and count the frames."""
        number = 0
        try:
            with open_container(f"file:{self._path}") as container:
                stream = choose_video(container, self._number)
                for item in PictureReader(container, stream, SoftwareDecoder(stream.codec_context, threads=None)):
                    match item:
                        case Picture():
                            yield number, partial(self._turned, item.pixels, item.orientation)
                        case Lost():
                            yield number, None
                        case _:
                            continue
                    number += 1
        except (av.FFmpegError, VideoError) as error:
            raise unreadable(self._path, error) from error

    def _decode(self, start: int) -> Iterator[_Decoded]:
        begin = self._index.times[self._index.starts[start]]
        try:
            with open_container(f"file:{self._path}") as container:
                stream = choose_video(container, self._number)
                if stream.codec_context.codec.canonical_name in PATCHED_UP:
                    stream.codec_context.thread_count = 1  # otherwise damaged frames aren't marked
                if start:
                    container.seek(self._index.seeks[start], stream=stream)
                for picture in container.decode(stream):
                    # frames shown before the key frame may depend on frames that weren't decoded
                    if picture.pts is None or picture.pts >= begin:
                        yield picture.pts, None if picture.is_corrupt else partial(self._pixels, picture)
        except av.FFmpegError as error:
            raise DataError(f"{self._path} is damaged in frame {self._next} or soon after it; {_CONVERT}") from error
