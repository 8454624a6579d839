"""Detect when a device has more streams than it can serve."""

import logging
import math
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

TIME_CONSTANT: Final = 10.0  # seconds; about how far back the average looks
HIGH_WATERMARK: Final = 0.5  # share of time at which the pressure becomes high
LOW_WATERMARK: Final = 0.25  # share of time below which the pressure is no longer high


class Pressure:
    """The share of the last seconds in which streams waited too long for their turn on the device.

    A stream's turn comes when the frames of other streams that arrived earlier are done. This wait grows with the
    number of streams and their cost, but not with the length of one client's queue. So a single client that sends as
    fast as it can causes no pressure, and neither does a device that is merely busy.

    The share is an exponential average over time. No burst shorter than `TIME_CONSTANT` x ln 2 = 7 seconds raises it to
    `HIGH_WATERMARK`, and it falls as fast. A device without work is under no pressure, regardless of the past.
    """

    def __init__(
        self,
        limit: float,
        depth: Callable[[], int],
        device: str = "the device",
        *,
        time_constant: float = TIME_CONSTANT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without pressure.

        Args:
            limit: The seconds beyond which a wait is too long, or 0 for no limit.
            depth: Returns the number of frames that wait for the device or run on it.
            device: The device's name in the log.
            time_constant: The time constant of the average in seconds.
            clock: Returns monotonic seconds.
        """
        self._limit = limit or math.inf
        self._depth = depth
        self._device = device
        self._time_constant = time_constant
        self._clock = clock
        self._share = 0.0
        self._updated = clock()
        self._is_high = False

    @property
    def share(self) -> float:
        """The share of time, from 0 to 1."""
        if not self._depth():
            self._set(0.0)
        return self._share

    @property
    def is_high(self) -> bool:
        """Whether to refuse new streams: from `HIGH_WATERMARK` on, until the share is below `LOW_WATERMARK`."""
        return self.share > 0 and self._is_high

    def record_wait(self, seconds: float) -> None:
        """Record how long a stream waited for its turn, which has just come."""
        is_late = seconds > self._limit
        elapsed = self._clock() - self._updated
        span = min(elapsed, seconds) if is_late else elapsed  # a wait says nothing about the time before it
        self._set(self._share + (is_late - self._share) * -math.expm1(-span / self._time_constant))

    def _set(self, share: float) -> None:
        self._share, self._updated = share, self._clock()
        if not self._is_high and share >= HIGH_WATERMARK:
            self._is_high = True
            log.warning("streams wait over %g s for their turn on %s: it takes no new ones", self._limit, self._device)
        elif self._is_high and share < LOW_WATERMARK:
            self._is_high = False
            log.info("streams get their turn on %s in time again: it takes new ones", self._device)
