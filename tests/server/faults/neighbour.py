"""A stream that goes on beside whatever a test does to the server."""

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from keywarp.protocol import Hello, Result
from tests.server.conftest import PATIENCE, Running
from tests.server.media import jpeg

PERIOD = 0.1  # seconds from frame to frame
ALONE = 10  # frames that show how long a result takes without a fault
DISTURBED = 0.5  # seconds that most results may take at least; without a fault it is a few milliseconds


class Neighbour:
    """A camera of 10 frames a second."""

    def __init__(self) -> None:
        self.latencies: list[float] = []  # seconds from each frame to its result
        self._enough = threading.Condition()
        self._error: Exception | None = None
        self.ended = threading.Event()

    def add(self, seconds: float) -> None:
        with self._enough:
            self.latencies.append(seconds)
            self._enough.notify_all()

    def fail(self, error: Exception) -> None:
        with self._enough:
            self._error = error
            self._enough.notify_all()

    def receives(self, frames: int) -> None:
        """Wait until it has received so many more results."""
        with self._enough:
            wanted = len(self.latencies) + frames
            self._enough.wait_for(lambda: self._error or len(self.latencies) >= wanted, PATIENCE)
            assert not self._error, f"the neighbour failed: {self._error!r}"
            assert len(self.latencies) >= wanted, f"{wanted - len(self.latencies)} of {frames} results are missing"


@contextmanager
def undisturbed(server: Running) -> Iterator[Neighbour]:
    """Run a neighbour beside the block. At the end, check that it had its results in time."""
    neighbour = Neighbour()

    def run() -> None:
        try:
            with server.connect(f"neighbour-{secrets.token_hex(4)}", Hello()) as talk:
                while not neighbour.ended.is_set():
                    sent = time.monotonic()
                    talk.frame(jpeg())
                    response = talk.response()
                    assert isinstance(response, Result), response
                    neighbour.add(time.monotonic() - sent)
                    time.sleep(max(sent + PERIOD - time.monotonic(), 0.0))
        except Exception as error:  # noqa: BLE001 - raised again by the test
            neighbour.fail(error)

    thread = threading.Thread(target=run, name="neighbour")
    thread.start()
    try:
        neighbour.receives(ALONE)
        yield neighbour
    finally:
        neighbour.ended.set()
        thread.join()
    neighbour.receives(0)
    alone, beside = neighbour.latencies[:ALONE], sorted(neighbour.latencies[ALONE:])
    usual, slow = max(alone), beside[len(beside) * 9 // 10]
    assert slow < max(DISTURBED, 5 * usual), f"every tenth result took {slow:.1f} s, and {usual:.2f} s at most before"
