"""Key frames where the content changes: the paper's future work (section 3, "Key Frame Scheduling"), a first step."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.change import Thumbnail, moved_share, still_share
from keywarp.engines.result import KeyReason
from keywarp.engines.schedule import Pacer, Placement

START_THRESHOLD = 0.2  # where the search for the threshold that holds a target begins
LEAST_THRESHOLD = 0.01  # smaller changes are worth no key frame before the longest interval is over
GREATEST_THRESHOLD = 1.0  # no change is greater
GAIN = 0.25  # of the control: how far one key frame more than the target moves the threshold's logarithm


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveInterval:
    """A key frame once motion explains too little of what changed since the last one, and at each cut.

    What "too little" is, either `threshold` fixes, or it is adapted until key frames are `target` frames apart in the
    mean, whatever the content. Then a stream costs what it costs at `FixedInterval(target)`, or less where nothing
    changes: of n frames at most n / target + 8 are key frames, unless cuts, gaps and `maximum` alone make more.

    Example:
        >>> session = StreamSession(engine, AdaptiveInterval(target=10, maximum=30))
    """

    target: float | None = None  # mean interval to hold, frames
    threshold: float | None = None  # 0..1, the change (`FrameResult.change`) beyond which a frame is a key frame
    maximum: int = 30  # frames from a key frame to the next at most
    minimum: int = 1  # frames at least, except before a cut
    cut: float = 0.45  # 0..1, the change from one frame to the next that is a cut; 1: there are no cuts

    def __post_init__(self) -> None:
        if (self.target is None) == (self.threshold is None):
            raise ValueError("an adaptive interval has either a `target` or a `threshold`")
        if not 1 <= self.minimum <= self.maximum:
            raise ValueError(f"intervals need 1 <= minimum <= maximum, got {self.minimum} and {self.maximum}")
        if self.target is not None and not self.minimum <= self.target <= self.maximum:
            raise ValueError(f"the target {self.target:g} isn't between {self.minimum} and {self.maximum} frames")
        for share in (self.cut, self.threshold):
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"a change is a share of the picture, above 0 and at most 1, got {share:g}")

    def pacer(self) -> Pacer:
        """Begin a stream."""
        return _AdaptivePacer(self)


class _AdaptivePacer:
    def __init__(self, options: AdaptiveInterval) -> None:
        self._options = options
        # A mean of 1 leaves nothing to decide: every frame is a key frame.
        self._maximum = 1 if options.target == 1 else options.maximum
        self._threshold = options.threshold or START_THRESHOLD
        self._key: Thumbnail | None = None
        self._last: Thumbnail | None = None  # the frame before
        self._age = 0  # its key age

    def place(self, frame: NDArray[np.uint8], forced: KeyReason | None = None, skipped: int = 0) -> Placement:
        self._age += skipped
        current = Thumbnail.of(frame)
        placement = Placement(forced) if forced else self._judge(current)
        if placement.is_key:
            self._key, self._age = current, 0
        else:
            self._age += 1
        self._last = current
        self._adapt(placement.is_key, 1 + skipped)
        return placement

    def _judge(self, current: Thumbnail) -> Placement:
        key, last, age = self._key, self._last, self._age + 1
        if key is None or last is None:
            return Placement(KeyReason.START)
        if current.frame_shape != key.frame_shape:
            return Placement(KeyReason.SIZE)
        if age >= self._maximum:
            return Placement(KeyReason.INTERVAL)
        change = moved_share(current, key)
        if self._is_cut(current, last, change):
            return Placement(KeyReason.CUT, change)
        if age >= self._options.minimum and change > self._threshold:
            return Placement(KeyReason.CHANGE, change)
        return Placement(None, change)

    def _is_cut(self, current: Thumbnail, last: Thumbnail, change: float) -> bool:
        """Whether neither standing still nor moving leads here from the frame before, `change` being from the key."""
        if still_share(current, last) <= self._options.cut:  # nearly always: no second search
            return False
        return (change if last is self._key else moved_share(current, last)) > self._options.cut

    def _adapt(self, is_key: bool, frames: int) -> None:
        """Integral control: each key frame raises the threshold, each other frame lowers it by what target allows.

        So as long as no bound is met, the threshold tells how many key frames the stream is ahead of its target.
        """
        if self._options.target is not None:
            step = math.exp(GAIN * (is_key - frames / self._options.target))
            self._threshold = min(max(self._threshold * step, LEAST_THRESHOLD), GREATEST_THRESHOLD)
