"""What a source of frames is."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

DEFAULT_FPS = 25.0  # where the source says nothing


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a source."""

    image: NDArray[np.uint8]  # RGB (H, W, 3), C-contiguous
    timestamp: float | None  # seconds, as the source says; None if it doesn't


class Source(ABC):
    """Frames, to go through once, and what is known of them beforehand. Close it, or use it in a `with` statement.

    Attributes:
        fps: Frames per second; `DEFAULT_FPS` where the source doesn't say.
        count: Frames in all, as the source says; None if it doesn't.
        width: Of the first frame, pixels.
        height: Of the first frame, pixels.
        live: Whether frames come in their own time, and are old when they are read late.
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
            SourceError: The source is damaged. What could be read came before.
        """

    def close(self) -> None:  # noqa: B027 (many sources hold nothing)
        """Let the file or device go."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
