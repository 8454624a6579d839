"""Runs the sessions' frames on the device, one after another."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.result import FrameResult
from keywarp.engines.session import StreamSession


@dataclass(frozen=True, slots=True, eq=False)
class Executed:
    """A result, and how long its frame waited for the device."""

    result: FrameResult
    queued: float  # seconds


class Executor:
    """One device thread that takes frames of all sessions first come, first served.

    One thread, because on a CPU a single inference already uses all cores: two at once would only delay each other.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keywarp-device")
        self._lock = Lock()
        self._depth = 0

    @property
    def depth(self) -> int:
        """Frames that wait or run."""
        return self._depth

    def submit(
        self, session: StreamSession, frame: NDArray[np.uint8], index: int | None = None, skipped: int = 0
    ) -> Future[Executed]:
        """Queue one frame; the arguments are those of `StreamSession.process`, whose errors the future carries.

        Raises:
            RuntimeError: The executor is closed.
        """
        queued_at = time.perf_counter()

        def run() -> Executed:
            queued = time.perf_counter() - queued_at
            return Executed(session.process(frame, index, skipped), queued)

        future = self._pool.submit(run)
        with self._lock:
            self._depth += 1
        future.add_done_callback(self._done)
        return future

    def close(self) -> None:
        """Finish what is queued, then stop."""
        self._pool.shutdown(wait=True)

    def _done(self, _: Future[Executed]) -> None:
        with self._lock:
            self._depth -= 1
