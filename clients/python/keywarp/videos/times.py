"""When pictures are shown."""

import heapq
from fractions import Fraction


class PictureTimes:
    """The times at which pictures are shown: rising, or None."""

    def __init__(self, time_base: Fraction | None, *, in_coding_order: bool = False) -> None:
        """Begin with the first picture.

        Args:
            time_base: The unit of time stamps in seconds, or None if there are none.
            in_coding_order: Whether the container's time stamps rise with the units, whatever is shown first, as in
                AVI. Sorted, they are those of the pictures.
        """
        self._time_base = time_base
        self._sorted: list[int] | None = [] if in_coding_order else None
        self._last: float | None = None

    def add(self, pts: int | None) -> None:
        """Note the time stamp of a unit that is going to be decoded."""
        if self._sorted is not None and pts is not None:
            heapq.heappush(self._sorted, pts)

    def skip(self, count: int) -> None:
        """Pass over pictures that are lost."""
        for _ in range(count):
            self._pts(None)

    def next(self, pts: int | None) -> float | None:
        """Return the time of a picture in seconds, or None if it isn't known.

        Args:
            pts: The time stamp of its unit.
        """
        pts = self._pts(pts)
        if pts is None or self._time_base is None:
            return None
        seconds = float(pts * self._time_base)
        if self._last is not None and seconds <= self._last:
            return None
        self._last = seconds
        return seconds

    def _pts(self, pts: int | None) -> int | None:
        if self._sorted is None:
            return pts
        return heapq.heappop(self._sorted) if self._sorted else None
