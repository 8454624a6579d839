"""Frames, and the base class of their sources."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keywarp.client.resources import Closable

DEFAULT_FPS = 25.0  # for sources whose frame rate is unknown


@dataclass(frozen=True, slots=True, eq=False)
class CodecVectors:
    """The motion vectors of a frame, as FFmpeg's decoder exports them."""

    blocks: NDArray[Any] | None  # `AVMotionVector`, one for each block and reference; None if there is none
    picture: int  # FFmpeg's number of the picture type
    codec: str  # FFmpeg's name of the codec


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a source."""

    image: NDArray[np.uint8]  # RGB (H, W, 3), C-contiguous
    timestamp: float | None  # seconds; None if it is unknown
    vectors: CodecVectors | None = None  # None if they weren't asked for, or this is no video


class Source(Closable):
    """A source of frames, to iterate over once. Close it, or use it in a `with` statement.

    Attributes:
        fps: Frames per second, or `DEFAULT_FPS` if the rate is unknown.
        count: The number of frames, or None if it is unknown.
        width: The width of the first frame in pixels.
        height: The height of the first frame in pixels.
        live: Whether frames arrive in real time, so that they become old if they aren't read at once.
    """

    fps: float
    count: int | None
    width: int
    height: int
    live: bool = False

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Read the frames.

        Raises:
            SourceError: If the source is damaged, after the frames that could be read.
        """

    def close(self) -> None:
        """Release the file or device, if the source holds one."""
