"""Clients that stream all the time, while something breaks."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from keywarp.client import Client
from tests.e2e.test_cameras import PATIENCE, eventually

CLIENTS = 6
FPS = 20


@dataclass
class Viewer:
    """A client that streams frames at a steady rate until it is told to end."""

    stream: str
    sent: int = 0
    frames: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)  # of the results; monotonic seconds
    reconnects: int = 0

    def run(self, url: str, over: threading.Event) -> None:
        """Stream, and note the results."""
        with Client(url) as client, client.stream(self._pictures(over), stream_id=self.stream, interval=5) as results:
            for result in results:
                self.frames.append(result.frame)
                self.times.append(result.received)
            self.reconnects = results.reconnects

    def longest_gap(self, since: float, until: float) -> float:
        """Return the longest time without a result in a span of time."""
        return max(b - a for a, b in pairwise([since, *(t for t in self.times if since < t < until), until]))

    def _pictures(self, over: threading.Event) -> Iterator[NDArray[np.uint8]]:
        start = time.monotonic()
        while not over.is_set():
            yield np.full((48, 64, 3), self.sent % 256, np.uint8)
            self.sent += 1
            over.wait(max(0.0, start + self.sent / FPS - time.monotonic()))


@contextmanager
def viewing(url: str, clients: int = CLIENTS) -> Iterator[list[Viewer]]:
    """Run clients until the block ends, and let them end by themselves."""
    over = threading.Event()
    viewers = [Viewer(f"viewer-{number}") for number in range(clients)]
    threads = [threading.Thread(target=viewer.run, args=(url, over), daemon=True) for viewer in viewers]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: all(len(viewer.frames) > FPS for viewer in viewers))
        yield viewers
    finally:
        over.set()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def check_each_frame_once(viewers: list[Viewer]) -> None:
    """Check that each frame that a client sent has exactly one result."""
    for viewer in viewers:
        assert viewer.frames == list(range(viewer.sent)), viewer.stream
