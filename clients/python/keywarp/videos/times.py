"""When pictures are shown."""

import heapq
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av


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

    def skip(self) -> None:
        """Pass over a picture that is lost."""
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


class UnitTimes:
    """Tells which units of a video, in coding order, have times at which they are shown."""

    def __init__(self, *, in_coding_order: bool = False) -> None:
        """Begin with the first unit.

        Args:
            in_coding_order: Whether the container's time stamps rise with the units, as in `PictureTimes`.
        """
        self._in_coding_order = in_coding_order
        self._last: int | None = None  # at which a unit was decoded
        self._latest: int | None = None  # at which a unit was shown
        self._floor: int | None = None  # the latest one before time stamps started over
        self.epoch = 0  # how often they have

    def known(self, unit: "av.Packet[Any]") -> bool:
        """Take the next unit, and return whether its time stamp is one of presentation, and above those before."""
        if unit.dts is not None:
            if self._last is not None and unit.dts < self._last:
                self.epoch += 1
                self._floor = self._latest
            self._last = unit.dts
        if unit.pts is None or self._in_coding_order:
            return False
        self._latest = unit.pts if self._latest is None else max(self._latest, unit.pts)
        return self._floor is None or unit.pts > self._floor
