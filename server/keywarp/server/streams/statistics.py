"""A stream's throughput and latency over the last seconds."""

import time
from collections import deque
from typing import Final

import numpy as np

from keywarp.protocol import LiveStatistics, Timings

SPAN: Final = 10.0  # seconds that the statistics cover
_MAX_RESULTS: Final = 4096


class StreamStatistics:
    """Remembers the times and latencies of a stream's last results."""

    def __init__(self) -> None:
        # For each result: its time (monotonic seconds), its latency (seconds), and whether its frame is a key frame.
        self._results: deque[tuple[float, float, bool]] = deque(maxlen=_MAX_RESULTS)
        self._created = time.monotonic()

    def record(self, timings: Timings, *, key: bool) -> None:
        """Record a result that is delivered now."""
        self._results.append((time.monotonic(), sum(seconds for _, seconds in timings), key))

    @property
    def live(self) -> LiveStatistics:
        """The statistics of the last `SPAN` seconds."""
        now = time.monotonic()
        recent = [result for result in self._results if now - result[0] < SPAN]
        if not recent:
            return LiveStatistics(fps=0.0)
        # A full deque and a young stream cover less than `SPAN`.
        span = now - recent[0][0] if len(recent) == _MAX_RESULTS else min(SPAN, now - self._created)
        median, high = np.percentile([latency for _, latency, _ in recent], (50, 95)).tolist()
        keys = sum(key for *_, key in recent)
        return LiveStatistics(
            fps=len(recent) / max(span, 1e-3), latency_p50=median, latency_p95=high, key_share=keys / len(recent)
        )
