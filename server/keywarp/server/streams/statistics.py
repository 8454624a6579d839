"""A stream's throughput and latency over the last seconds."""

import time
from collections import deque
from typing import Final

import numpy as np

from keywarp.protocol import LiveStatistics, Timings

SPAN: Final = 10.0  # seconds that the statistics cover
_MAX_RESULTS: Final = 4096


class StreamStatistics:
    """Remembers when a stream's last results were given, and their latency."""

    def __init__(self) -> None:
        # When each result was given (monotonic), its latency, both in seconds, and whether it is a key frame's.
        self._results: deque[tuple[float, float, bool]] = deque(maxlen=_MAX_RESULTS)
        self._created = time.monotonic()

    def record(self, timings: Timings, *, key: bool) -> None:
        """Count a result that is given now."""
        self._results.append((time.monotonic(), sum(seconds for _, seconds in timings), key))

    @property
    def live(self) -> LiveStatistics:
        """The statistics of the last `SPAN` seconds."""
        now = time.monotonic()
        recent = [result for result in self._results if now - result[0] < SPAN]
        if not recent:
            return LiveStatistics(fps=0.0)
        # A full deque covers less than `SPAN`, and so does a stream that is younger.
        span = now - recent[0][0] if len(recent) == _MAX_RESULTS else min(SPAN, now - self._created)
        median, high = np.percentile([latency for _, latency, _ in recent], (50, 95)).tolist()
        keys = sum(key for *_, key in recent)
        return LiveStatistics(
            fps=len(recent) / max(span, 1e-3), latency_p50=median, latency_p95=high, key_share=keys / len(recent)
        )
