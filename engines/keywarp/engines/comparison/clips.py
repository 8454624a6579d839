"""Clips to compare on, and where key frames start in them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.motion import MotionVectors

GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True, eq=False)
class ClipFrame:
    """One decoded frame."""

    image: NDArray[np.uint8]  # RGB (H, W, 3)
    index: int  # position in its video
    time: float  # seconds since the video's start
    vectors: MotionVectors | None = None  # the codec's motion vectors, if it gave any


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A video, or a range of one, that can be read several times."""

    name: str  # for people
    frames: Callable[[], Iterator[ClipFrame]]  # reads all frames in order, from the first one
    count: int | None = None  # frames, about; None if it is unknown
    identity: str = ""  # tells this content from any other, so that an interrupted comparison can go on


def key_start(number: int, stride: int) -> int:
    """Return the position of a key frame from which results are propagated.

    There is one in each block of `stride` frames. Its place in the block follows the golden ratio, so that no rhythm of
    the content or of the codec can coincide with it, and every run has the same ones.

    Args:
        number: Its number, from 0.
        stride: The mean distance of two key starts, frames.
    """
    return stride * number + int(stride * (number * GOLDEN_RATIO % 1))


def choose_stride(stride: int, count: int | None, ages: int, max_frames: int | None) -> int:
    """Return the distance of key starts with which about `max_frames` frames are needed at most.

    Args:
        stride: The shortest distance.
        count: The clip's length in frames, or None if it is unknown.
        ages: The greatest key age.
        max_frames: The number of frames to evaluate, or None for all.
    """
    if max_frames is None or count is None or count <= max_frames:
        return stride
    return max(stride, -(-count * (ages + 1) // max_frames))
