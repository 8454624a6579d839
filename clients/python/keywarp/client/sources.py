"""Open files, folders, cameras and arrays as sources of frames."""

from collections.abc import Iterable, Iterator, Sized
from itertools import chain
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keywarp.client.errors import SourceError, SourceOptionError
from keywarp.client.frames import DEFAULT_FPS, Frame, Source
from keywarp.client.image_files import ImageSource, open_image_file
from keywarp.client.images import check_image
from keywarp.client.videos import VideoSource
from keywarp.images import SUFFIXES

SourceLike = str | PathLike[str] | Iterable[NDArray[np.uint8]]


def open_source(source: SourceLike, *, vectors: bool = False, upright: bool = True, video: int | None = None) -> Source:
    """Open a source of frames.

    Args:
        source: A video file, a URL that FFmpeg reads (`http://`, `rtsp://`, ...), a camera (`camera:0` or
            `/dev/video0`), an image, a folder of images (in the order of their names, with `img2` before `img10`), or
            an iterable of RGB uint8 arrays of shape (H, W, 3).
        vectors: Whether the frames of a file or URL come with the codec's motion vectors.
        upright: Whether frames are turned as the video or image says, or left as they are stored. Arrays are taken as
            they are.
        video: Which of the videos of a file or URL, from 0, or None for the best.

    Raises:
        SourceOptionError: If `video` is given for something that can't hold several: images, a camera or arrays.
        SourceError: If the source doesn't exist, isn't a video, or is damaged from the start. A source that is damaged
            later yields the frames that can be decoded, and then raises.
    """
    if not isinstance(source, (str, PathLike)):
        _refuse_choice(video, "arrays are one video")
        return ArraySource(source)
    name = str(source)
    if name.startswith(("camera:", "/dev/video")):
        _refuse_choice(video, f"{name!r} is a camera, which has one video")
    if name.startswith("camera:"):
        number = name.removeprefix("camera:")
        if not number.isdecimal():
            raise SourceError(f"a camera is named by its number, as in camera:0, not {name!r}")
        return VideoSource.camera(f"/dev/video{number}", upright=upright)
    if name.startswith("/dev/video"):
        return VideoSource.camera(name, upright=upright)
    path = Path(name)
    if path.is_dir():
        _refuse_choice(video, f"{name!r} is a folder of images, which has no videos to choose from")
        return ImageSource.folder(path, upright=upright)
    if path.suffix.lower() in SUFFIXES and path.is_file():
        _refuse_choice(video, f"{name!r} is an image, which has no videos to choose from")
        return open_image_file(path, upright=upright)
    return VideoSource(name, vectors=vectors, upright=upright, video=video)


def _refuse_choice(video: int | None, reason: str) -> None:
    if video is not None:
        raise SourceOptionError("video", reason)


class ArraySource(Source):
    """Arrays as frames. They have no timestamps."""

    def __init__(self, arrays: Iterable[NDArray[np.uint8]]) -> None:
        """Read the first array to find the size of the frames.

        Raises:
            SourceError: If there is no array, or it isn't RGB uint8 of shape (H, W, 3).
        """
        iterator = iter(arrays)
        first = next(iterator, None)
        if first is None:
            raise SourceError("there are no frames in this iterable")
        check_image(first)
        self._arrays = chain((first,), iterator)
        self.fps = DEFAULT_FPS
        self.count = len(arrays) if isinstance(arrays, Sized) else None
        self.height, self.width = first.shape[:2]

    def __iter__(self) -> Iterator[Frame]:
        """Check the arrays and yield them as frames."""
        for array in self._arrays:
            check_image(array)
            yield Frame(np.ascontiguousarray(array), None)
