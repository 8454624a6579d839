"""What a server holds, as its metrics say, and whether that grows."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from keywarp.server.streams.registry import RELEASE_PERIOD

CALM_SECONDS: Final = 60.0  # within which everything of clients that are gone must be freed
STEP: Final = 0.2  # seconds between two looks


@dataclass(frozen=True)
class Sample:
    """What a server held at one moment. `streams` to `threads` must not grow while clients come and go."""

    at: float  # seconds, monotonic
    memory: int  # resident bytes
    streams: int
    connections: int  # of clients, without the one that asks
    files: int
    tasks: int
    threads: int
    frames: int  # with a result, since the start
    processor: float  # seconds of processor time since the start


COUNTS: Final = ("streams", "connections", "files", "tasks", "threads")


class Probe:
    """Reads the metrics of a server over one connection."""

    def __init__(self, url: str, *, settle: float = RELEASE_PERIOD + 1) -> None:
        """Prepare for the server at a URL.

        Args:
            url: The server's URL.
            settle: Seconds that `calm` leaves the server to give memory back.
        """
        self._settle = settle
        self._http = httpx.Client(base_url=url, timeout=CALM_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def read(self) -> Sample:
        """Read all figures."""
        at, text = time.monotonic(), self._http.get("/metrics").raise_for_status().text
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
        return Sample(
            at=at,
            memory=int(found["process_resident_memory_bytes"]),
            streams=int(found["keywarp_streams"]),
            connections=int(found["keywarp_connections"]) - 1,
            files=int(found["process_open_fds"]),
            tasks=int(found["keywarp_tasks"]),
            threads=int(found["keywarp_threads"]),
            frames=int(found.get("keywarp_frames_total", 0)),
            processor=found["process_cpu_seconds_total"],
        )

    def calm(self) -> Sample:
        """Wait until no stream and no connection is left, and memory was given back, and read.

        After `CALM_SECONDS` it reads what is left.
        """
        deadline = time.monotonic() + CALM_SECONDS
        while (sample := self.read()).streams or sample.connections:
            if time.monotonic() > deadline:
                break
            time.sleep(STEP)
        time.sleep(self._settle)
        return self.read()


def kept(before: Sample, after: Sample) -> list[str]:
    """Say what a server kept of clients that are gone, besides memory."""
    found = ((name, getattr(before, name), getattr(after, name)) for name in COUNTS)
    return [f"{name}: {then} before, {now} after" for name, then, now in found if now > then]


def growth(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    """Estimate how much a figure grew over the time of the samples.

    The slope is Theil and Sen's: the median of the slopes between all pairs of samples, so that single peaks don't
    count. The figure leaks if even the lower bound is above what is tolerated.

    Args:
        samples: At least 3 samples.
        name: A field of `Sample`.

    Returns:
        The growth, and its lower bound with a confidence of 97.5 % (Sen 1968).
    """
    times = np.array([sample.at for sample in samples])
    values = np.array([float(getattr(sample, name)) for sample in samples])
    first, second = np.triu_indices(len(samples), 1)
    slopes = np.sort((values[second] - values[first]) / (times[second] - times[first]))
    number = len(samples)
    ties = sum(n * (n - 1) * (2 * n + 5) for n in np.unique(values, return_counts=True)[1])
    deviation = np.sqrt(max(0.0, (number * (number - 1) * (2 * number + 5) - ties) / 18))  # of Kendall's score
    low = int(np.clip(round((len(slopes) - 1.96 * deviation) / 2), 0, len(slopes) - 1))
    span = times[-1] - times[0]
    return float(np.median(slopes) * span), float(slopes[low] * span)


def as_dict(sample: Sample) -> dict[str, float]:
    """Return a sample for JSON."""
    return {field.name: getattr(sample, field.name) for field in fields(sample)}
