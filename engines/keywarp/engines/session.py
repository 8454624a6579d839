"""The state of one stream, which runs Algorithm 1 of the paper frame by frame."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.engine import Engine, KeyState
from keywarp.engines.errors import FrameOrderError
from keywarp.engines.motion import MotionVectors
from keywarp.engines.preparation import check_frame
from keywarp.engines.result import FrameResult, KeyReason
from keywarp.engines.schedule import FixedInterval, KeySchedule
from keywarp.engines.stream_clock import StreamClock

AGE_DECIMALS: Final = 6  # of a key age in seconds, so that sums of timestamps don't exceed a limit that they equal


@dataclass(frozen=True, slots=True, eq=False)
class _KeyFrame:
    index: int
    time: float  # seconds of the stream's clock
    shape: tuple[int, ...]
    state: KeyState

    def age(self, now: float) -> float:
        """Return the seconds since this frame."""
        return round(now - self.time, AGE_DECIMALS)


class StreamSession:
    """Turns a stream of frames into results, with features computed on key frames and propagated between them.

    A session isn't thread-safe, since its frames have an order. Sessions of several streams may share one engine.

    Example:
        >>> session = StreamSession(Engine(load_bundle("models/street")), FixedInterval(10))
        >>> [session.process(frame).kind.value for frame in frames[:3]]
        ['key', 'propagated', 'propagated']
    """

    def __init__(self, engine: Engine, schedule: KeySchedule | None = None, max_age: float | None = None) -> None:
        """Start a stream.

        Args:
            engine: The engine that runs the networks.
            schedule: The key schedule, or None for the bundle's fixed interval.
            max_age: The seconds after which a key frame is too old to propagate from, whatever the schedule says, or
                None for no such limit.

        Raises:
            ValueError: If `max_age` isn't above 0.
        """
        if max_age is not None and not max_age > 0:
            raise ValueError(f"the greatest key age must be above 0 seconds, got {max_age:g}")
        self.engine = engine
        self.schedule = schedule or FixedInterval(engine.bundle.manifest.key_interval)
        self.max_age = max_age
        self._stream_schedule = self.schedule.for_stream()
        self._clock = StreamClock()
        self._key: _KeyFrame | None = None
        self._last = -1

    def process(
        self,
        frame: NDArray[np.uint8],
        index: int | None = None,
        skipped: int = 0,
        vectors: Sequence[MotionVectors | None] = (),
        timestamp: float | None = None,
        *,
        gap: bool = False,
        lane: int | None = None,
    ) -> FrameResult:
        """Process the next frame.

        The frame becomes a key frame if the schedule says so, if it is the first, if frames are missing before it (a
        gap in `index`, `gap`, or `interrupt`), if its size differs from the key frame's, or if the key frame is more
        than `max_age` seconds old.

        Args:
            frame: The frame, uint8 (H, W, 3), RGB.
            index: The frame's position in the stream, or None if it follows the last frame and the skipped ones.
            skipped: The number of frames right before it that were dropped on purpose. They are no gap, and the key
                schedule doesn't count them.
            vectors: The codec's motion vectors of each decoded frame since the last processed one, the last ones of
                this frame; None for frames without vectors. Other motion sources than `codec` ignore them.
            timestamp: When the frame was taken, in seconds of any clock, or None if that isn't known. Key ages in
                seconds are then counted by when frames are processed, as they are where timestamps jump backwards.
            gap: Whether frames before it are missing or damaged, although the index doesn't tell.
            lane: Which share of the device it runs on, or None for the whole device. See `Engine`.

        Raises:
            InvalidFrameError: If `frame` isn't a uint8 array of shape (H, W, 3).
            FrameOrderError: If `index` isn't above the last frame's. The session stays as it was.
            EngineError: If the device or the motion source failed, or the bundle's graphs don't fit together. The next
                frame becomes a key frame.
        """
        check_frame(frame)
        following = self._last + 1 + skipped
        index = following if index is None else index
        if index <= self._last:
            raise FrameOrderError(f"frame {index} came after frame {self._last}: submit frames in increasing order")
        now = self._clock.advance(timestamp)
        forced = self._forced(frame, now, gap=gap or index > following)
        key, self._key = self._key, None  # stays None if this frame fails
        decision = self._stream_schedule.decide(frame, forced)
        reason = forced or decision.reason
        if key is None or reason:
            result, state = self.engine.key(frame, lane)
            key = _KeyFrame(index, now, frame.shape, state)
        else:
            result = self.engine.propagate(frame, key.state, vectors, lane)
        self._key, self._last = key, index
        return replace(
            result,
            index=index,
            key_age=index - key.index,
            key_age_seconds=key.age(now),
            reason=reason,
            change=decision.change,
        )

    def interrupt(self) -> None:
        """Make the next frame a key frame, because frames before it were lost."""
        self._key = None

    def close(self) -> None:
        """Free the key frame's features."""
        self._key = None

    def _forced(self, frame: NDArray[np.uint8], now: float, *, gap: bool) -> KeyReason | None:
        """Return the reason why nothing may be propagated to this frame, or None."""
        if self._last < 0:
            return KeyReason.START
        if self._key is None or gap:
            return KeyReason.GAP
        if self._key.shape != frame.shape:
            return KeyReason.SIZE
        too_old = self.max_age is not None and self._key.age(now) > self.max_age
        return KeyReason.AGE if too_old else None
