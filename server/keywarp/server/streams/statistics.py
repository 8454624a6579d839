"""How a stream does at the moment."""

import time
from collections import deque
from typing import Final

import numpy as np

from keywarp.protocol import LiveStatistics, Timings

SPAN: Final = 10.0  # seconds back
_MOST: Final = 4096  # frames


class Heart:
    """Remembers a stream's last results."""

    def __init__(self) -> None:
        self._beats: deque[tuple[float, float, bool]] = deque(maxlen=_MOST)  # when, latency (both seconds), key
        self._since = time.monotonic()

    def beat(self, timings: Timings, *, key: bool) -> None:
        """Count a result that is given now."""
        self._beats.append((time.monotonic(), sum(seconds for _, seconds in timings), key))

    @property
    def pulse(self) -> LiveStatistics:
        """What can be said of the last seconds."""
        now = time.monotonic()
        recent = [beat for beat in self._beats if now - beat[0] < SPAN]
        if not recent:
            return LiveStatistics(fps=0.0)
        # From the first of them on, where older ones are forgotten; from the stream's start, where it is young.
        span = now - recent[0][0] if len(recent) == _MOST else min(SPAN, now - self._since)
        median, high = np.percentile([latency for _, latency, _ in recent], (50, 95)).tolist()
        keys = sum(key for *_, key in recent)
        return LiveStatistics(
            fps=len(recent) / max(span, 1e-3), latency_p50=median, latency_p95=high, key_share=keys / len(recent)
        )
