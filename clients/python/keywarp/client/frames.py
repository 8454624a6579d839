"""Frames, and the base class of their sources."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from keywarp.client.resources import Closable
from keywarp.videos import CodecVectors

DEFAULT_FPS = 25.0  # for sources whose frame rate is unknown


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a source."""

    image: NDArray[np.uint8]  # RGB (H, W, 3), C-contiguous
    timestamp: float | None  # seconds, above those of all frames before; None if it is unknown
    vectors: CodecVectors | None = None  # None if they weren't asked for, or this is no video
    gap: bool = False  # whether frames before it are damaged or missing, so that nothing may be propagated to it
    unit: int | None = None  # the number of the video's packet that it comes from, from 0; None if this is no video


class Source(Closable):
    """A source of frames, to iterate over once. Close it, or use it in a `with` statement.

    Attributes:
        fps: Frames per second, or `DEFAULT_FPS` if the rate is unknown.
        count: The number of frames, or None if it is unknown.
        width: The width of the first frame in pixels.
        height: The height of the first frame in pixels.
        live: Whether frames arrive in real time, so that they become old if they aren't read at once.
        start: The time in seconds at which the source begins, or None if it is unknown.
        aspect: The width of a pixel relative to its height.
        notes: What one should know about the source, such as that another video was left out.
        missing: The number of frames so far that are damaged or missing; the least number that it can be, if the source
            was cut off and doesn't say how many it had.
    """

    fps: float
    count: int | None
    width: int
    height: int
    live: bool = False
    start: float | None = None
    aspect: Fraction = Fraction(1)
    notes: tuple[str, ...] = ()
    missing: int = 0

    def __len__(self) -> int:
        """Return the number of frames.

        Raises:
            TypeError: If it is unknown.
        """
        if self.count is None:
            raise TypeError("the number of frames of this source is unknown")
        return self.count

    def __bool__(self) -> bool:
        """Return True, also for a source without frames."""
        return True

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Read the frames.

        Raises:
            SourceError: If the source is damaged, after the frames that could be read.
        """

    def close(self) -> None:
        """Release the file or device, if the source holds one."""
