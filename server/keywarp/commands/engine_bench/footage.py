"""The frames that everything runs on, with the motion vectors of the packets that they came in."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import cv2
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from keywarp.cli.errors import CommandError
from keywarp.clips.opening import open_clip
from keywarp.engines.comparison import ClipFrame

LENGTH = 10  # frames of a window: a key frame, and those that are propagated from it
MAX_WINDOWS = 8  # different ones; then they come again

Frame = NDArray[np.uint8]
Window = Sequence[ClipFrame]


def read_windows(video: Path, size: tuple[int, int] | None, count: int, *, as_stored: bool = False) -> list[Window]:
    """Read windows of consecutive frames.

    Args:
        video: The video.
        size: The height and width that frames are resized to, or None for their own. Resized frames are encoded and
            decoded again (H.264 without B-frames, as cameras send it), so that they come with motion vectors.
        count: How many windows are needed.
        as_stored: Whether frames are left as they are stored, instead of being turned upright.

    Raises:
        CommandError: If the video is too short, or can't be encoded at this size.
    """
    wanted = min(count, MAX_WINDOWS) * LENGTH
    frames = list(islice(open_clip(str(video), as_stored=as_stored).frames(), wanted))
    if len(frames) < LENGTH:
        raise CommandError(f"{video} has {len(frames)} frames, but at least {LENGTH} are needed: use a longer video")
    if size is not None and frames[0].image.shape[:2] != size:
        frames = list(_encoded_again(_resized(frames, size), size))
    return [frames[start : start + LENGTH] for start in range(0, len(frames) - LENGTH + 1, LENGTH)]


def _resized(frames: Sequence[ClipFrame], size: tuple[int, int]) -> Iterator[Frame]:
    height, width = size
    for frame in frames:
        yield np.asarray(cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _encoded_again(images: Iterator[Frame], size: tuple[int, int]) -> Iterator[ClipFrame]:
    with TemporaryDirectory(prefix="keywarp-bench-") as folder:
        path = Path(folder) / "resized.mkv"
        options = {"preset": "veryfast", "tune": "zerolatency"}
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options=options)
            assert isinstance(stream, VideoStream)
            stream.height, stream.width = size
            stream.pix_fmt = "yuv420p"
            for image in images:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        yield from open_clip(str(path)).frames()
