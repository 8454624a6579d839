"""A wall clock that doesn't follow a jump into the future until it has lasted."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

log = logging.getLogger(__name__)

LASTING: Final = 86_400.0  # seconds after which a jump is believed
TOLERANCE: Final = 60.0  # seconds by which a clock that is being corrected may move between two looks at it


class SteadyClock:
    """Says what time it is at the earliest. By it, nothing is deleted too early because a clock is wrong for hours.

    A clock that is set back is believed at once: then less is deleted.
    """

    def __init__(
        self,
        seen: float | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start at the last time that is known, which is all that is certain after a restart.

        Args:
            seen: The last time that an earlier clock has seen, in seconds since 1970; or None to believe this one.
            wall: Returns the seconds since 1970, by a clock that may jump.
            monotonic: Returns the seconds of a clock that never jumps.
        """
        self._wall, self._monotonic = wall, monotonic
        now = wall()
        self._offset = min(now, now if seen is None else seen) - monotonic()  # of the time that is believed
        self._claimed: float | None = None  # the same after a jump, which isn't believed yet
        self._since = 0.0  # monotonic seconds at which it was seen first

    def now(self) -> float:
        """Return the seconds since 1970 that have passed for certain."""
        monotonic = self._monotonic()
        offset = self._wall() - monotonic
        if offset <= self._offset + TOLERANCE:
            self._offset, self._claimed = offset, None
        elif self._claimed is None or abs(offset - self._claimed) > TOLERANCE:
            self._claimed, self._since = offset, monotonic
            ahead = timedelta(seconds=round(offset - self._offset))
            log.info("the clock is %s ahead of what is known: it is believed after a day", ahead)
        elif monotonic - self._since >= LASTING:
            self._offset, self._claimed = offset, None
        return self._offset + monotonic
