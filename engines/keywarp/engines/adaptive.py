"""Key frames where the content changes: a first step towards the paper's future work (section 3)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.change import Thumbnail, change_after_motion, change_without_motion
from keywarp.engines.result import KeyReason
from keywarp.engines.schedule import KeyDecision, StreamSchedule

START_THRESHOLD = 0.2  # the first threshold of a stream with a target
LEAST_THRESHOLD = 0.01  # a smaller change is never worth a key frame before `maximum` frames have passed
GREATEST_THRESHOLD = 1.0  # the greatest possible change
GAIN = 0.25  # control gain: how far one key frame above the target moves the logarithm of the threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveInterval:
    """A schedule that places a key frame when motion no longer explains the changes since the last one, and at cuts.

    Either `threshold` fixes how much may remain unexplained, or `target` fixes the mean interval and the threshold
    adapts to the content. With a target, a stream costs what it costs with `FixedInterval(target)`, or less where
    nothing changes: at most n / target + 8 of n frames are key frames, unless cuts, gaps, `maximum` and the session's
    `max_age` require more. All frames counted here are those that are processed; dropped ones don't count.

    Example:
        >>> session = StreamSession(engine, AdaptiveInterval(target=10, maximum=30))
    """

    target: float | None = None  # mean interval to keep, frames
    threshold: float | None = None  # 0..1, the change (`FrameResult.change`) above which a frame becomes a key frame
    maximum: int = 30  # longest interval, frames
    minimum: int = 1  # shortest interval, frames; a cut may come earlier
    cut: float = 0.45  # 0..1, the change from one frame to the next above which it is a cut; 1 ignores cuts

    def __post_init__(self) -> None:
        if (self.target is None) == (self.threshold is None):
            raise ValueError("an adaptive interval needs either a `target` or a `threshold`, and not both")
        if not 1 <= self.minimum <= self.maximum:
            raise ValueError(
                f"an adaptive interval needs 1 <= minimum <= maximum, got {self.minimum} and {self.maximum}"
            )
        if self.target is not None and not self.minimum <= self.target <= self.maximum:
            raise ValueError(f"the target {self.target:g} isn't between {self.minimum} and {self.maximum} frames")
        for share in (self.cut, self.threshold):
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"`cut` and `threshold` must be above 0 and at most 1, got {share:g}")

    def for_stream(self) -> StreamSchedule:
        """Return the schedule of a new stream."""
        return _AdaptiveStreamSchedule(self)


class _AdaptiveStreamSchedule:
    def __init__(self, options: AdaptiveInterval) -> None:
        self._options = options
        # With a mean interval of 1 every frame is a key frame.
        self._maximum = 1 if options.target == 1 else options.maximum
        self._threshold = options.threshold or START_THRESHOLD
        self._key: Thumbnail | None = None
        self._last: Thumbnail | None = None  # of the previous frame
        self._age = 0  # of the key frame at the previous frame, in processed frames

    def decide(self, frame: NDArray[np.uint8], forced: KeyReason | None = None) -> KeyDecision:
        current = Thumbnail.of(frame)
        decision = KeyDecision(forced) if forced else self._judge(current)
        if decision.is_key:
            self._key, self._age = current, 0
        else:
            self._age += 1
        self._last = current
        self._adapt(decision.is_key)
        return decision

    def _judge(self, current: Thumbnail) -> KeyDecision:
        key, last, age = self._key, self._last, self._age + 1
        if key is None or last is None:
            return KeyDecision(KeyReason.START)
        if current.frame_shape != key.frame_shape:
            return KeyDecision(KeyReason.SIZE)
        if age >= self._maximum:
            return KeyDecision(KeyReason.INTERVAL)
        change = change_after_motion(current, key)
        if self._is_cut(current, last, change):
            return KeyDecision(KeyReason.CUT, change)
        if age >= self._options.minimum and change > self._threshold:
            return KeyDecision(KeyReason.CHANGE, change)
        return KeyDecision(None, change)

    def _is_cut(self, current: Thumbnail, last: Thumbnail, change: float) -> bool:
        """Return whether `current` starts a new scene; `change` is the change since the key frame."""
        # This is nearly always true, and saves a second search for motion.
        if change_without_motion(current, last) <= self._options.cut:
            return False
        return (change if last is self._key else change_after_motion(current, last)) > self._options.cut

    def _adapt(self, is_key: bool) -> None:
        """Move the threshold by integral control: each key frame raises it, and each frame lowers it by its share.

        Between its bounds, the threshold thus counts how many key frames the stream is ahead of its target.
        """
        if self._options.target is not None:
            step = math.exp(GAIN * (is_key - 1 / self._options.target))
            self._threshold = min(max(self._threshold * step, LEAST_THRESHOLD), GREATEST_THRESHOLD)
