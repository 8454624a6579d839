"""Measure times and latencies of results in constant memory, since a camera's stream may never end."""

import math
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from keywarp.cli.summary import Latency, Summary
from keywarp.client.results import ProcessedFrame

STEP: Final = 1.002  # the ratio of neighbouring bins of latencies; figures are within 0.1 %
MAX_SPANS: Final = 1024  # the most separate spans that are kept


class Stopwatch:
    """Measures the times of results while they are iterated over. Its memory doesn't grow with their number."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._frames = 0
        self._key_frames = 0
        self._key = Latencies()
        self._propagated = Latencies()
        self._coverage = Coverage()

    def timed(self, results: Iterable[ProcessedFrame]) -> Iterator[ProcessedFrame]:
        """Yield the results, and measure their times."""
        waiting_since = time.monotonic()
        for result in results:
            now = time.monotonic()
            self._coverage.add(waiting_since, now)
            self._frames += 1
            self._key_frames += result.kind == "key"
            if result.latency is not None:
                self._coverage.add(result.received - result.latency, result.received)
                (self._key if result.kind == "key" else self._propagated).add(result.latency)
            yield result
            # If the latency is unknown, frames may be under way, so all time counts.
            waiting_since = now if result.latency is None else time.monotonic()
        self._coverage.add(waiting_since, time.monotonic())

    def summary(self) -> Summary:
        """Return the figures so far."""
        return Summary(
            title=self._title,
            frames=self._frames,
            key_frames=self._key_frames,
            seconds=self._coverage.seconds,
            key=self._key.summary(),
            propagated=self._propagated.summary(),
        )


class Latencies:
    """A histogram of latencies whose bins are narrow enough for percentiles within 0.1 %."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count one latency. Less than a microsecond counts as a microsecond."""
        self._counts[round(math.log(max(seconds, 1e-6), STEP))] += 1

    def summary(self) -> Latency | None:
        """Return the percentiles, or None if there was no latency."""
        return Latency(self._percentile(0.5), self._percentile(0.99)) if self._counts else None

    def _percentile(self, share: float) -> float:
        """Return the smallest latency that this share of all latencies doesn't exceed."""
        left = share * self._counts.total()
        for step in sorted(self._counts):
            left -= self._counts[step]
            if left <= 0:
                break
        return float(STEP**step)


class Coverage:
    """The length of time that spans cover together. Time in which they overlap counts once.

    It is exact as long as no span begins before the last 1024 gaps between spans.
    """

    def __init__(self) -> None:
        self._starts: list[float] = []  # of spans that don't touch each other, in order
        self._ends: list[float] = []
        self._merged = 0.0  # total seconds of older spans, which aren't kept
        self._merged_until = float("-inf")  # end of the last of those spans; monotonic seconds

    @property
    def seconds(self) -> float:
        """The covered time in seconds."""
        return self._merged + sum(self._ends) - sum(self._starts)

    def add(self, start: float, end: float) -> None:
        """Add a span, in monotonic seconds."""
        start, end = max(start, self._merged_until), max(end, self._merged_until)
        first, beyond = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < beyond:  # it touches the spans between
            start, end = min(start, self._starts[first]), max(end, self._ends[beyond - 1])
        self._starts[first:beyond], self._ends[first:beyond] = [start], [end]
        if len(self._starts) > MAX_SPANS:
            self._merged_until = self._ends.pop(0)
            self._merged += self._merged_until - self._starts.pop(0)
