"""A stream's throughput, latency and key frames over the last seconds."""

import time
from collections import deque
from typing import Final, NamedTuple

import numpy as np

from keywarp.protocol import LiveStatistics, Timings

SPAN: Final = 10.0  # seconds that the statistics cover
_MAX_RESULTS: Final = 4096


class _Delivered(NamedTuple):
    """What is remembered of a result."""

    time: float  # monotonic seconds
    latency: float  # seconds
    key_age: float  # seconds
    reliability: float | None  # 0..1; None on key frames
    is_key: bool


class StreamStatistics:
    """Remembers the last results of a stream."""

    def __init__(self) -> None:
        self._results: deque[_Delivered] = deque(maxlen=_MAX_RESULTS)
        self._created = time.monotonic()

    def record(self, timings: Timings, key_age: float, reliability: float | None, *, key: bool) -> None:
        """Record a result that is delivered now, with its key age in seconds, and its reliability if it has one."""
        latency = sum(seconds for _, seconds in timings)
        self._results.append(_Delivered(time.monotonic(), latency, key_age, reliability, key))

    @property
    def live(self) -> LiveStatistics:
        """The statistics of the last `SPAN` seconds."""
        now = time.monotonic()
        recent = [result for result in self._results if now - result.time < SPAN]
        if not recent:
            return LiveStatistics(fps=0.0)
        # A full deque and a young stream cover less than `SPAN`.
        span = now - recent[0].time if len(recent) == _MAX_RESULTS else min(SPAN, now - self._created)
        rated = [result.reliability for result in recent if result.reliability is not None]
        median, high = np.percentile([result.latency for result in recent], (50, 95)).tolist()
        return LiveStatistics(
            fps=len(recent) / max(span, 1e-3),
            latency_p50=median,
            latency_p95=high,
            key_share=sum(result.is_key for result in recent) / len(recent),
            key_age_seconds=max(result.key_age for result in recent),
            reliability=sum(rated) / len(rated) if rated else None,
        )
