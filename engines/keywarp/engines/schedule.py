"""Decide which frames become key frames (Algorithm 1, line 6; section 3, "Key Frame Scheduling")."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.result import KeyReason


@dataclass(frozen=True, slots=True)
class KeyDecision:
    """Whether a frame is a key frame, and why."""

    reason: KeyReason | None  # why it is a key frame, or None if it isn't one
    change: float | None = None  # 0..1, see `FrameResult.change`; None if it wasn't measured

    @property
    def is_key(self) -> bool:
        """Whether the frame is a key frame."""
        return self.reason is not None


class StreamSchedule(Protocol):
    """A key schedule with the state of one stream.

    It sees the frames that are processed. Frames that are dropped under load never reach it, so they don't change the
    share of key frames.
    """

    def decide(self, frame: NDArray[np.uint8], forced: KeyReason | None = None) -> KeyDecision:
        """Decide whether the stream's next frame is a key frame. The first one always is.

        If processing the frame fails afterwards, nothing has to be undone, as long as the next frame is forced.

        Args:
            frame: The frame, uint8 (H, W, 3), RGB.
            forced: The reason why it must be a key frame, or None to let the schedule decide.
        """
        ...


class KeySchedule(Protocol):
    """A rule for choosing key frames. It holds settings only, so streams may share it.

    Example:
        >>> stream = FixedInterval(2).for_stream()
        >>> [stream.decide(frame).is_key for frame in frames[:5]]
        [True, False, True, False, True]
    """

    def for_stream(self) -> StreamSchedule:
        """Return the schedule of a new stream."""
        ...


@dataclass(frozen=True, slots=True)
class FixedInterval:
    """The paper's schedule: a key frame every `interval` frames. Interval 1 is per-frame evaluation.

    Streams that start together and take turns on a device would all have their key frames in the same turn. Different
    phases keep them apart.
    """

    interval: int  # l, frames
    phase: int = 0  # frames by which a stream's first interval is shorter

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ValueError(f"the key interval must be at least 1 frame, got {self.interval}")
        if not 0 <= self.phase < self.interval:
            raise ValueError(f"the phase must be from 0 to {self.interval - 1} frames, got {self.phase}")

    def for_stream(self) -> StreamSchedule:
        """Return the schedule of a new stream."""
        return _FixedStreamSchedule(self.interval, self.phase)


class _FixedStreamSchedule:
    """Counts frames and never looks at their content."""

    def __init__(self, interval: int, phase: int) -> None:
        self._interval = interval
        self._next = interval - phase  # frames from the next key frame to the one after it
        self._left = 0  # frames before the next key frame
        self._due = KeyReason.START

    def decide(self, frame: NDArray[np.uint8], forced: KeyReason | None = None) -> KeyDecision:  # noqa: ARG002
        reason = forced or (None if self._left else self._due)
        if reason:
            self._left, self._next = self._next, self._interval
        self._left -= 1
        self._due = KeyReason.INTERVAL
        return KeyDecision(reason)
