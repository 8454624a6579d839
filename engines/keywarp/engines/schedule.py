"""When to place a key frame (Algorithm 1, line 6; section 3, "Key Frame Scheduling")."""

import math
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.result import KeyReason

TOLERATED: Final = 0.05  # share of frames that are left out, beyond which a device is overloaded
GROWTH: Final = 1.5  # of an overloaded stream's interval, from one key frame to the next
RECOVERY: Final = 0.1  # of the interval, given back from one key frame to the next


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
    """The paper's schedule: a key frame every `interval` frames. Interval 1 is per-frame evaluation.

    With a `maximum`, it is elastic: where frames have to be left out, since the device can't keep up, the interval
    grows up to it, for key frames are what costs; and comes back when no more are left out.
    """

    interval: int  # l, frames
    maximum: int | None = None  # frames; None: the interval stays

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ValueError(f"the key interval is at least 1 frame, got {self.interval}")
        if self.maximum is not None and self.maximum < self.interval:
            raise ValueError(f"the longest interval, {self.maximum}, is below the interval, {self.interval}")

    def pacer(self) -> Pacer:
        """Begin a stream."""
        return _FixedPacer(self.interval, self.maximum or self.interval)


class _FixedPacer:
    """Counts; it never looks at a frame."""

    def __init__(self, shortest: int, longest: int) -> None:
        self._shortest = shortest
        self._longest = longest
        self._interval = shortest
        self._left = 0  # frames before the next key frame
        self._due = KeyReason.START
        self._frames = self._skipped = 0  # since the last key frame; those left out among them

    def place(self, frame: NDArray[np.uint8], forced: KeyReason | None = None, skipped: int = 0) -> Placement:  # noqa: ARG002
        self._left = max(self._left - skipped, 0)
        self._frames += 1 + skipped
        self._skipped += skipped
        reason = forced or (None if self._left else self._due)
        if reason:
            self._adapt()
        self._left = (self._interval if reason else self._left) - 1
        self._due = KeyReason.INTERVAL
        return Placement(reason)

    def _adapt(self) -> None:
        if self._skipped > TOLERATED * self._frames:
            self._interval = min(math.ceil(GROWTH * self._interval), self._longest)
        elif not self._skipped:
            self._interval = max(self._interval - math.ceil(RECOVERY * self._interval), self._shortest)
        self._frames = self._skipped = 0
