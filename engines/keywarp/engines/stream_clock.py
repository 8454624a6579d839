"""The time within one stream."""

import math
import time
from collections.abc import Callable


class StreamClock:
    """The seconds since a stream's first frame. They never decrease.

    From one frame to the next the clock advances by the difference of their timestamps. It advances by the real time
    between them instead if one has no timestamp, or if the timestamps jump backwards, as they do when a source starts
    again.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Start before the first frame.

        Args:
            now: Returns monotonic seconds.
        """
        self._now = now
        self._seconds = 0.0
        self._timestamp: float | None = None  # of the last frame, seconds
        self._processed: float | None = None  # when the last frame was processed, monotonic seconds

    def advance(self, timestamp: float | None) -> float:
        """Advance to the next frame, which is processed now.

        Args:
            timestamp: The frame's timestamp in seconds, or None if it has none. One that isn't finite counts as none.

        Returns:
            The time of the frame in seconds.
        """
        now = self._now()
        timestamp = timestamp if timestamp is None or math.isfinite(timestamp) else None
        if timestamp is not None and self._timestamp is not None and timestamp >= self._timestamp:
            self._seconds += timestamp - self._timestamp
        elif self._processed is not None:
            self._seconds += now - self._processed
        self._timestamp, self._processed = timestamp, now
        return self._seconds
