"""Decide which frames become key frames (Algorithm 1, line 6; section 3, "Key Frame Scheduling")."""

import math
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.result import KeyReason

TOLERATED: Final = 0.05  # share of skipped frames above which the device counts as overloaded
GROWTH: Final = 1.5  # factor by which an overloaded stream's interval grows at each key frame
RECOVERY: Final = 0.1  # share of the interval by which it shrinks at each key frame without overload


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
    """A key schedule with the state of one stream."""

    def decide(self, frame: NDArray[np.uint8], forced: KeyReason | None = None, skipped: int = 0) -> KeyDecision:
        """Decide whether the stream's next frame is a key frame. The first one always is.

        If processing the frame fails afterwards, nothing has to be undone, as long as the next frame is forced.

        Args:
            frame: The frame, uint8 (H, W, 3), RGB.
            forced: The reason why it must be a key frame, or None to let the schedule decide.
            skipped: The number of frames skipped right before it, which count towards the interval.
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

    With a `maximum` the interval is elastic. While frames are skipped because the device can't keep up, it grows up to
    the maximum, since key frames are the expensive ones. Once no more frames are skipped, it shrinks again.
    """

    interval: int  # l, frames
    maximum: int | None = None  # frames, or None for a fixed interval

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ValueError(f"the key interval must be at least 1 frame, got {self.interval}")
        if self.maximum is not None and self.maximum < self.interval:
            raise ValueError(
                f"the maximum interval of {self.maximum} frames is below the interval of {self.interval} frames"
            )

    def for_stream(self) -> StreamSchedule:
        """Return the schedule of a new stream."""
        return _FixedStreamSchedule(self.interval, self.maximum or self.interval)


class _FixedStreamSchedule:
    """Counts frames and never looks at their content."""

    def __init__(self, shortest: int, longest: int) -> None:
        self._shortest = shortest
        self._longest = longest
        self._interval = shortest
        self._left = 0  # frames before the next key frame
        self._due = KeyReason.START
        self._frames = self._skipped = 0  # since the last key frame; `_frames` includes `_skipped`

    def decide(self, frame: NDArray[np.uint8], forced: KeyReason | None = None, skipped: int = 0) -> KeyDecision:  # noqa: ARG002
        self._left = max(self._left - skipped, 0)
        self._frames += 1 + skipped
        self._skipped += skipped
        reason = forced or (None if self._left else self._due)
        if reason:
            self._adapt()
        self._left = (self._interval if reason else self._left) - 1
        self._due = KeyReason.INTERVAL
        return KeyDecision(reason)

    def _adapt(self) -> None:
        if self._skipped > TOLERATED * self._frames:
            self._interval = min(math.ceil(GROWTH * self._interval), self._longest)
        elif not self._skipped:
            self._interval = max(self._interval - math.ceil(RECOVERY * self._interval), self._shortest)
        self._frames = self._skipped = 0
