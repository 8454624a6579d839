"""Run the frames of all sessions on one device, one after another."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.motion import MotionVectors
from keywarp.engines.result import FrameResult
from keywarp.engines.session import StreamSession


class Executor:
    """A thread that runs the frames of all sessions on a device, first come, first served.

    There is only one thread, because a single inference already uses all cores of a CPU: two at once would only delay
    each other.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keywarp-device")
        self._lock = Lock()
        self._depth = 0
        # When each session's last frame was done. Only the device thread uses it.
        self._done_at: WeakKeyDictionary[StreamSession, float] = WeakKeyDictionary()

    @property
    def depth(self) -> int:
        """The number of frames that are waiting or running."""
        return self._depth

    def submit(
        self,
        session: StreamSession,
        frame: NDArray[np.uint8],
        index: int | None = None,
        skipped: int = 0,
        vectors: Sequence[MotionVectors | None] = (),
        timestamp: float | None = None,
        *,
        gap: bool = False,
    ) -> Future[FrameResult]:
        """Queue one frame.

        Args:
            session: The session that processes the frame.
            frame: See `StreamSession.process`.
            index: See `StreamSession.process`.
            skipped: See `StreamSession.process`.
            vectors: See `StreamSession.process`.
            timestamp: See `StreamSession.process`.
            gap: See `StreamSession.process`.

        Returns:
            A future with the result, or with the error that `StreamSession.process` raised.

        Raises:
            RuntimeError: If the executor is closed.
        """
        queued_at = time.perf_counter()

        def run() -> FrameResult:
            started = time.perf_counter()
            turn = started - max(queued_at, self._done_at.get(session, queued_at))
            try:
                result = session.process(frame, index, skipped, vectors, timestamp, gap=gap)
                return replace(result, queue=started - queued_at, turn=turn)
            finally:
                self._done_at[session] = time.perf_counter()

        future = self._pool.submit(run)
        with self._lock:
            self._depth += 1
        future.add_done_callback(self._finished)
        return future

    def close(self) -> None:
        """Finish the queued frames, then stop."""
        self._pool.shutdown(wait=True)

    def _finished(self, _: Future[FrameResult]) -> None:
        with self._lock:
            self._depth -= 1
