"""Whether there are more streams than a device can serve."""

import logging
import math
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

SPAN: Final = 10.0  # seconds back, about
HIGH: Final = 0.5  # of that time: from here on it is too much
LOW: Final = 0.25  # of that time: below it isn't any more


class Pressure:
    """The share of the last seconds in which streams waited too long for their turn on the device.

    A stream's turn comes when frames of the other streams, which were there first, are done. That wait grows with the
    number of streams and what they cost, and not with how far one client is ahead of the device; so a single one that
    sends as fast as it can is no pressure, and neither is a device that is merely busy.

    The share is an exponential average over time, which no burst of less than `SPAN` x ln 2 = 7 seconds drives up to
    `HIGH`. It falls as fast; and a device that has nothing to do is under no pressure, whatever was before.
    """

    def __init__(self, limit: float, depth: Callable[[], int], device: str = "the device") -> None:
        """Begin without any.

        Args:
            limit: Seconds of a wait that is too long; 0: none is.
            depth: The number of frames that wait for the device or run on it.
            device: What it is called in the log.
        """
        self._limit = limit or math.inf
        self._depth = depth
        self._device = device
        self._share = 0.0
        self._at = time.monotonic()
        self._is_high = False

    @property
    def share(self) -> float:
        """From 0 to 1."""
        if not self._depth():
            self._set(0.0)
        return self._share

    @property
    def is_high(self) -> bool:
        """Whether no more streams should be taken: from `HIGH` on, until the share is below `LOW`."""
        return self.share > 0 and self._is_high

    def note(self, turn: float) -> None:
        """Take in how many seconds a stream waited for its turn, which has just been."""
        late = turn > self._limit
        since = time.monotonic() - self._at
        span = min(since, turn) if late else since  # a wait says nothing of the time before it
        self._set(self._share + (late - self._share) * -math.expm1(-span / SPAN))

    def _set(self, share: float) -> None:
        self._share, self._at = share, time.monotonic()
        if not self._is_high and share >= HIGH:
            self._is_high = True
            log.warning("streams wait over %g s for their turn on %s: it takes no new ones", self._limit, self._device)
        elif self._is_high and share < LOW:
            self._is_high = False
            log.info("streams get their turn on %s in time: it takes new ones again", self._device)
