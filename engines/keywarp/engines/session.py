"""The state of one stream, which runs Algorithm 1 of the paper frame by frame."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from keywarp.engines.engine import Engine, KeyPass, KeyState
from keywarp.engines.errors import EngineError, FrameOrderError
from keywarp.engines.frames import DeviceFrame, Frame
from keywarp.engines.motion import MotionTracker, MotionVectors
from keywarp.engines.preparation import check_frame
from keywarp.engines.result import FrameResult, KeyReason
from keywarp.engines.schedule import FixedInterval, KeySchedule
from keywarp.engines.stream_clock import StreamClock

AGE_DECIMALS: Final = 6  # of a key age in seconds, so that sums of timestamps don't exceed a limit that they equal
_UNSEEN: Final = np.zeros((1, 1, 3), np.uint8)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _KeyFrame:
    index: int
    time: float  # seconds of the stream's clock
    shape: tuple[int, ...]
    state: KeyState

    def age(self, now: float) -> float:
        """Return the seconds since this frame."""
        return round(now - self.time, AGE_DECIMALS)


@dataclass(slots=True, eq=False)
class _UpcomingKey:
    """A key frame whose features are computed between the frames after it, which are propagated from the one before."""

    index: int
    time: float  # seconds of the stream's clock
    shape: tuple[int, ...]
    tracker: MotionTracker | None  # follows the motion from this frame on
    computing: KeyPass
    overlap: int  # frames from this one on that don't use it
    left: int  # frames of these that are left

    @property
    def owed(self) -> int:
        """The steps to run before the next frame, so that each frame of the overlap is followed by its share."""
        return max(0, self.computing.left - self.computing.steps * (self.left - 1) // self.overlap)

    def join(self) -> _KeyFrame:
        """Return the key frame with its features.

        Raises:
            EngineError: If the device failed.
        """
        state = replace(self.computing.finish(), tracker=self.tracker)
        return _KeyFrame(self.index, self.time, self.shape, state)


class StreamSession:
    """Turns a stream of frames into results, with features computed on key frames and propagated between them.

    A session isn't thread-safe, since its frames have an order. Sessions of several streams may share one engine.

    Example:
        >>> session = StreamSession(Engine(load_bundle("models/street")), FixedInterval(10))
        >>> [session.process(frame).kind.value for frame in frames[:3]]
        ['key', 'propagated', 'propagated']
    """

    def __init__(
        self,
        engine: Engine,
        schedule: KeySchedule | None = None,
        max_age: float | None = None,
        overlap: int = 0,
        *,
        eager: bool = False,
    ) -> None:
        """Start a stream.

        Args:
            engine: The engine that runs the networks.
            schedule: The key schedule, or None for the bundle's fixed interval.
            max_age: The seconds after which a key frame is too old to propagate from, whatever the schedule says, or
                None for no such limit.
            overlap: The number of frames, from the one at which a key frame is due, that are still propagated from the
                key frame before, while the features of the new one are computed in the engine's slices: an executor
                runs a share of these after each frame, and without one it runs before the next frame. So no frame takes
                as long as a key frame, but key ages grow by so many frames. With 0, key frames block.
            eager: Whether the stream goes on from the new key frame as soon as it is ready, and `overlap` only limits
                that. Results then depend on how fast the device is.

        Raises:
            ValueError: If `max_age` isn't above 0, or `overlap` is negative.
        """
        if max_age is not None and not max_age > 0:
            raise ValueError(f"the greatest key age must be above 0 seconds, got {max_age:g}")
        if overlap < 0:
            raise ValueError(f"the overlap must be at least 0 frames, got {overlap}")
        self.engine = engine
        self.overlap = overlap
        self.eager = eager
        self.schedule = schedule or FixedInterval(engine.bundle.manifest.key_interval)
        self.max_age = max_age
        self._stream_schedule = self.schedule.for_stream()
        # A fixed interval never looks at frames, which may thus stay on the device.
        self._looks = not isinstance(self.schedule, FixedInterval)
        self._clock = StreamClock()
        self._key: _KeyFrame | None = None
        self._upcoming: _UpcomingKey | None = None
        self._last = -1

    @property
    def owed(self) -> int:
        """The steps of the upcoming key frame that must run before the next frame."""
        upcoming = self._upcoming  # which `interrupt` may remove at any time
        return upcoming.owed if upcoming else 0

    @property
    def useful(self) -> int:
        """The steps of the upcoming key frame that may run now, if the device has time."""
        upcoming = self._upcoming
        return upcoming.computing.left if upcoming and self.eager else self.owed

    def advance(self, lane: int | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        """Run a step of the upcoming key frame, if there is one. Never call it while a frame is processed.

        Args:
            lane: See `process`.
            clock: See `KeyPass.step`.
        """
        upcoming = self._upcoming
        if upcoming and upcoming.computing.left:
            upcoming.computing.step(lane, clock)

    def process(
        self,
        frame: Frame,
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
        than `max_age` seconds old. With `overlap`, a frame for which only the schedule says so, other than at a cut, is
        propagated nevertheless, and is a key frame for those after it.

        Args:
            frame: The frame, uint8 (H, W, 3), RGB, or one that `Engine.frames` keeps on the device.
            index: The frame's position in the stream, or None if it follows the last frame and the skipped ones.
            skipped: The number of frames right before it that were dropped on purpose. They are no gap, and the key
                schedule doesn't count them.
            vectors: The codec's motion vectors of each decoded frame since the last processed one, the last ones of
                this frame; None for frames without vectors. Other motion sources than `codec` ignore them.
            timestamp: When the frame was taken, in seconds of any clock, or None if that isn't known. Key ages in
                seconds are then counted by when frames are processed, as they are where timestamps jump backwards.
            gap: Whether frames before it are missing or damaged, although the index doesn't tell.
            lane: Which lane it runs on, or None for the whole device. See `Engine`.

        Raises:
            InvalidFrameError: If `frame` isn't a uint8 array of shape (H, W, 3).
            FrameOrderError: If `index` isn't above the last frame's. The session stays as it was.
            EngineError: If the device or the motion source failed, or the bundle's graphs don't fit together. The next
                frame becomes a key frame.
        """
        if not isinstance(frame, DeviceFrame):
            check_frame(frame)
        following = self._last + 1 + skipped
        index = following if index is None else index
        if index <= self._last:
            raise FrameOrderError(f"frame {index} came after frame {self._last}: submit frames in increasing order")
        now = self._clock.advance(timestamp)
        forced = self._forced(frame, now, gap=gap or index > following)
        key, upcoming = self._key, self._upcoming
        self._key = self._upcoming = None  # they stay None if this frame fails
        decision = self._stream_schedule.decide(np.asarray(frame) if self._looks else _UNSEEN, forced)
        reason = forced or decision.reason
        blocks = bool(forced) or reason is KeyReason.CUT or not self.overlap
        overlapped = 0.0
        if upcoming and reason and blocks:
            upcoming = None
        elif upcoming:
            while upcoming.owed:
                upcoming.computing.step(lane)
            upcoming.left -= 1
            if upcoming.left <= 0 or (self.eager and not upcoming.computing.left):
                try:
                    key, overlapped = upcoming.join(), upcoming.computing.seconds
                except EngineError as error:
                    log.warning("the features of key frame %d could not be computed: %s", upcoming.index, error)
                    key, reason = None, KeyReason.GAP
                upcoming = None
        if key is None or (reason and blocks):
            result, state = self.engine.key(frame, lane)
            key = _KeyFrame(index, now, frame.shape, state)
        else:
            due = bool(reason) and not upcoming  # while one key frame is computed, another isn't begun
            reason = None
            result = self.engine.propagate(frame, key.state, vectors, lane)
            if due:
                tracker = key.state.tracker and key.state.tracker.fork()
                computing = KeyPass(self.engine, frame)
                upcoming = _UpcomingKey(index, now, frame.shape, tracker, computing, self.overlap, self.overlap)
        self._key, self._upcoming, self._last = key, upcoming, index
        return replace(
            result,
            index=index,
            key_age=index - key.index,
            key_age_seconds=key.age(now),
            reason=reason,
            change=decision.change,
            overlapped=overlapped,
        )

    def interrupt(self) -> None:
        """Make the next frame a key frame, because frames before it were lost."""
        self._key = self._upcoming = None

    def close(self) -> None:
        """Free the key frame's features."""
        self.interrupt()

    def _forced(self, frame: Frame, now: float, *, gap: bool) -> KeyReason | None:
        """Return the reason why nothing may be propagated to this frame, or None."""
        if self._last < 0:
            return KeyReason.START
        if self._key is None or gap:
            return KeyReason.GAP
        if self._key.shape != frame.shape:
            return KeyReason.SIZE
        too_old = self.max_age is not None and self._key.age(now) > self.max_age
        return KeyReason.AGE if too_old else None
