"""Clips: decoded videos in memory, divided into shots."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from keywarp.datasets.errors import DataError
from keywarp.datasets.images import Resize
from keywarp.datasets.video_file import unreadable
from keywarp.images.orientation import turn
from keywarp.videos import Picture, SoftwareDecoder, VideoError, VideoReader, choose_video, open_container


@dataclass(frozen=True)
class Clip:
    """Frames of one size and the shots that they form. Motion is meaningful only within a shot."""

    name: str
    frames: npt.NDArray[np.uint8]  # (T, H, W, 3) RGB
    shots: tuple[range, ...]  # ranges of frame indices; frames outside all shots aren't used

    def __post_init__(self) -> None:
        for shot in self.shots:
            if not 0 <= shot.start < shot.stop <= len(self.frames):
                raise DataError(f"{self.name}: shot {shot} is outside its {len(self.frames)} frames")

    def shot_of(self, index: int) -> range:
        """Return the shot that holds a frame.

        Raises:
            DataError: If the frame is in no shot.
        """
        for shot in self.shots:
            if index in shot:
                return shot
        raise DataError(f"{self.name}: frame {index} is in no shot")

    def part(self, name: str, start: int, stop: int) -> "Clip":
        """Return the frames start..stop-1, renumbered from 0, without copying them."""
        shots = (range(max(s.start, start), min(s.stop, stop)) for s in self.shots)
        return Clip(name, self.frames[start:stop], tuple(range(s.start - start, s.stop - start) for s in shots if s))


def read_clip(path: Path, name: str, cuts: tuple[int, ...] = (), short_side: int = 480, long_side: int = 640) -> Clip:
    """Decode a whole video. Frames are turned upright, as its display matrix says.

    Args:
        path: A file that FFmpeg can read.
        name: The clip's name.
        cuts: The indices of the frames that start a new shot. 0 may be left out.
        short_side: The pixels of the shorter side that frames are resized to, unless the longer side would exceed
            `long_side`.
        long_side: The maximum pixels of the longer side.

    Raises:
        DataError: If the file isn't a readable video, is damaged, or a cut is outside it.
    """
    resize = Resize(short_side, long_side)
    try:
        with open_container(f"file:{path}") as container:
            video = choose_video(container)
            reader = VideoReader(container, video, SoftwareDecoder(video.codec_context, threads=None))
            frames = [resize.image(turn(p.pixels, p.orientation)) for p in reader if isinstance(p, Picture)]
    except (av.FFmpegError, VideoError) as error:
        raise unreadable(path, error) from error
    if reader.lost:  # the indices of cuts would be wrong
        raise DataError(f"{path} is damaged: {reader.lost} of {len(frames) + reader.lost} frames can't be decoded")
    bounds = [0, *sorted(set(cuts) - {0}), len(frames)]
    return Clip(name, np.stack(frames), tuple(range(a, b) for a, b in pairwise(bounds)))
