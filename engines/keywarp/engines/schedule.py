"""When to place a key frame (Algorithm 1, line 6; section 3, "Key Frame Scheduling")."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.result import KeyReason


@dataclass(frozen=True, slots=True)
class Placement:
    """What a schedule decided on a frame."""

    reason: KeyReason | None  # why it is a key frame; None: it isn't
    change: float | None = None  # 0..1, see `FrameResult.change`

    @property
    def is_key(self) -> bool:
        """Whether the frame is a key frame."""
        return self.reason is not None


class Pacer(Protocol):
    """A schedule at work on one stream."""

    def place(self, frame: NDArray[np.uint8], forced: KeyReason | None = None, skipped: int = 0) -> Placement:
        """Decide on the stream's next frame; the first is always a key frame.

        A frame that was placed and then failed needs no undoing, if the next one is forced.

        Args:
            frame: uint8 (H, W, 3), RGB.
            forced: Why it has to be a key frame, whatever the schedule says; None: it hasn't.
            skipped: Frames right before it that were left out; they count like others.
        """
        ...


class KeySchedule(Protocol):
    """A way of placing key frames: settings, which streams may share.

    Example:
        >>> pacer = FixedInterval(2).pacer()
        >>> [pacer.place(frame).is_key for frame in frames[:5]]
        [True, False, True, False, True]
    """

    def pacer(self) -> Pacer:
        """Begin a stream."""
        ...


@dataclass(frozen=True, slots=True)
class FixedInterval:
    """The paper's schedule: a key frame every `interval` frames. Interval 1 is per-frame evaluation."""

    interval: int  # l, frames

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ValueError(f"the key interval is at least 1 frame, got {self.interval}")

    def pacer(self) -> Pacer:
        """Begin a stream."""
        return _FixedPacer(self.interval)


class _FixedPacer:
    """Counts; it never looks at a frame."""

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._left = 0  # frames before the next key frame
        self._due = KeyReason.START

    def place(self, frame: NDArray[np.uint8], forced: KeyReason | None = None, skipped: int = 0) -> Placement:  # noqa: ARG002
        self._left = max(self._left - skipped, 0)
        reason = forced or (None if self._left else self._due)
        self._left = (self._interval if reason else self._left) - 1
        self._due = KeyReason.INTERVAL
        return Placement(reason)
