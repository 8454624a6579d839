"""Run the frames of all sessions on one device."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.engine import KeyState
from keywarp.engines.motion import MotionVectors
from keywarp.engines.processor import lower_priority
from keywarp.engines.result import FrameResult
from keywarp.engines.session import KeyPass, StreamSession


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """One frame of a session."""

    session: StreamSession
    process: Callable[[int | None], FrameResult]  # with the lane, or None for the whole device
    future: Future[FrameResult]
    queued_at: float


@dataclass(frozen=True, slots=True, eq=False)
class _KeyJob:
    """The features of one key frame, which are computed beside the frames of its session."""

    session: StreamSession
    key_pass: KeyPass
    future: Future[tuple[KeyState, float]]


class Executor:
    """Runs the frames of all sessions on a device, first come, first served.

    As many frames run at the same time as there are lanes, each on its share of the device, and each of another
    session, because the frames of a session have an order. A frame of the only session that has any gets the whole
    device: alone it is done sooner, but beside others the device does more, because the small layers of a network and
    the work around it use one core only.

    Key frames that overlap with others (see `StreamSession`) are computed on the same lanes. Frames come first, and one
    lane is always left to them, unless the next frame of a session waits for its key frame. The thread of a key frame
    yields to those of frames, so that it takes the time that they leave.

    A device that runs its work asynchronously, as a GPU does, may give each lane a stream of its own: `process` then
    submits the networks on it and collects their outputs, and host work of other lanes fills the time between.
    """

    def __init__(self, lanes: int = 1) -> None:
        """Start without sessions.

        Args:
            lanes: The number of frames that run at the same time. With one, each frame gets the whole device.
        """
        self.lanes = lanes
        self._pool = ThreadPoolExecutor(max_workers=lanes, thread_name_prefix="keywarp-device")
        self._key_pool = ThreadPoolExecutor(lanes, "keywarp-key", initializer=lower_priority)
        self._lock = Lock()
        self._closed = False
        self._depth = 0
        self._waiting: deque[_Job] = deque()
        self._running: set[StreamSession] = set()
        self._keys: dict[Future[tuple[KeyState, float]], _KeyJob] = {}  # that wait for a lane, in order
        self._computing = 0  # keys on a lane
        self._free = list(range(lanes))  # the lanes on which nothing runs
        self._done_at: WeakKeyDictionary[StreamSession, float] = WeakKeyDictionary()  # each session's last frame

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

        def process(lane: int | None) -> FrameResult:
            beside = partial(self._compute_beside, session)
            return session.process(frame, index, skipped, vectors, timestamp, gap=gap, lane=lane, beside=beside)

        job = _Job(session, process, Future(), time.perf_counter())
        with self._lock:
            if self._closed:
                raise RuntimeError("the executor is closed, and takes no frames")
            self._waiting.append(job)
            self._depth += 1
            self._wake()
        job.future.add_done_callback(self._finished)
        return job.future

    def close(self) -> None:
        """Finish the queued frames, then stop."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=True)
        self._key_pool.shutdown(wait=True)
        for future in self._keys:  # which no frame waits for
            future.cancel()

    def _compute_beside(self, session: StreamSession, key_pass: KeyPass) -> Future[tuple[KeyState, float]]:
        """Queue the computing of a key frame's features, which overlaps with frames."""
        job = _KeyJob(session, key_pass, Future())
        with self._lock:
            self._keys[job.future] = job
            if not self._closed:
                self._wake()
        return job.future

    def _wake(self) -> None:
        """Wake a free lane. A lane that is busy looks for work itself when it is done."""
        if self._free:
            self._pool.submit(self._run_jobs, self._free.pop())

    def _run_jobs(self, lane: int) -> None:
        """Run jobs on a lane, until there are none that can run."""
        while taken := self._take(lane):
            job, alone = taken
            if isinstance(job, _KeyJob):
                self._compute(job, lane)
                continue
            settle = self._run(job, None if alone else lane) if job.future.set_running_or_notify_cancel() else None
            with self._lock:
                self._running.discard(job.session)
                self._done_at[job.session] = time.perf_counter()
            if settle:  # whoever waits for the result may submit the session's next frame at once
                settle()

    def _compute(self, job: _KeyJob, lane: int) -> None:
        """Compute a key frame's features, unless they aren't needed any more."""
        settle: Callable[[], None] | None = None
        if job.future.set_running_or_notify_cancel():
            try:
                settle = partial(job.future.set_result, self._key_pool.submit(job.key_pass, lane).result())
            except BaseException as error:  # noqa: BLE001 - it belongs to the session
                settle = partial(job.future.set_exception, error)
        with self._lock:
            self._computing -= 1
            if job.session.awaited is job.future:  # until now its next frame waited for this, not for other sessions
                self._done_at[job.session] = time.perf_counter()
        if settle:
            settle()

    def _run(self, job: _Job, lane: int | None) -> Callable[[], None]:
        """Run a job, and return what settles its future."""
        started = time.perf_counter()
        turn = started - max(job.queued_at, self._done_at.get(job.session, job.queued_at))
        share = 1.0 if lane is None else 1 / self.lanes
        try:
            result = replace(job.process(lane), queue=started - job.queued_at, turn=turn, share=share)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
            return partial(job.future.set_exception, error)
        return partial(job.future.set_result, result)

    def _take(self, lane: int) -> tuple[_Job | _KeyJob, bool] | None:
        """Return the next job, and whether it gets the whole device; without a job, free the lane."""
        with self._lock:
            for place, job in enumerate(self._waiting):
                if job.session in self._running:
                    continue
                if awaited := job.session.awaited:
                    if key := self._keys.pop(awaited, None):
                        self._computing += 1
                        return key, False
                    continue  # another lane computes it
                del self._waiting[place]
                alone = not self._running and all(other.session is job.session for other in self._waiting)
                self._running.add(job.session)
                return job, alone or self.lanes == 1
            if self._keys and self._computing < self.lanes - 1 and not self._closed:
                self._computing += 1
                return self._keys.pop(next(iter(self._keys))), False
            self._free.append(lane)
            return None

    def _finished(self, _: Future[FrameResult]) -> None:
        with self._lock:
            self._depth -= 1
