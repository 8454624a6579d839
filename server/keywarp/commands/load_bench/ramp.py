"""The search for the largest number of cameras that meets an objective."""

from collections import defaultdict
from typing import Final

MOST: Final = 4096  # cameras


class Ramp:
    """Chooses what to measure next: doubles the number until it is too many, bisects, and repeats at the limit.

    A number passes if most of its measurements do.
    """

    def __init__(self, first: int, repeats: int) -> None:
        """Begin with a number, and measure the limit, and one more than it, so many times."""
        self._first = first
        self._repeats = repeats
        self._passed: defaultdict[int, list[bool]] = defaultdict(list)

    def add(self, cameras: int, passed: bool) -> None:
        """Note a measurement."""
        self._passed[cameras].append(passed)

    @property
    def limit(self) -> int:
        """The largest number that passes, of those that were measured; 0 if none does."""
        fails = [n for n in self._passed if not self._passes(n)]
        return max((n for n in self._passed if self._passes(n) and n < min(fails, default=MOST + 1)), default=0)

    def next(self) -> int | None:
        """Return the number of cameras to measure next, or None at the end."""
        low, high = self.limit, min((n for n in self._passed if not self._passes(n)), default=None)
        if high is None:
            return min(2 * low, MOST) if low < MOST and low else (self._first if not low else None)
        if high - low > 1:
            return (low + high) // 2
        # An odd number of measurements decides; the limit and the number above it take turns.
        wanting = [n for n in (low, high) if n and not self._decided(n)]
        return min(wanting, key=lambda n: len(self._passed[n]), default=None)

    def _passes(self, cameras: int) -> bool:
        found = self._passed[cameras]
        return sum(found) * 2 > len(found)

    def _decided(self, cameras: int) -> bool:
        """Return whether further measurements can't change the majority, or enough were made."""
        found = self._passed[cameras]
        most = max(sum(found), len(found) - sum(found))
        return len(found) >= self._repeats or most * 2 > self._repeats
