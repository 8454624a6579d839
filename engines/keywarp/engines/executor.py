"""Run the frames of all sessions on one device."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from weakref import WeakKeyDictionary

from keywarp.engines.frames import Frame
from keywarp.engines.motion import MotionVectors
from keywarp.engines.result import FrameResult
from keywarp.engines.session import StreamSession


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """One frame of a session."""

    session: StreamSession
    process: Callable[[int | None], FrameResult]  # with the lane, or None for the whole device
    future: Future[FrameResult]
    queued_at: float


class SharedTime:
    """The time of a device that all frames in flight share alike. With two of them, each gets half of a second.

    So the times of all frames add up to the time in which the device had any.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start without frames.

        Args:
            clock: Returns monotonic seconds.
        """
        self._clock = clock
        self._frames = 0
        self._given, self._updated = 0.0, clock()

    @property
    def given(self) -> float:
        """The seconds of the device that a frame in flight since the start would have had."""
        now = self._clock()
        if self._frames:
            self._given += (now - self._updated) / self._frames
        self._updated = now
        return self._given

    def count(self, frames: int) -> None:
        """Count frames that begin, or end if the number is negative."""
        self._given = self.given
        self._frames += frames


class Executor:
    """Runs the frames of all sessions on a device, first come, first served.

    As many frames run at the same time as there are lanes, each of another session, because the frames of a session
    have an order. Lanes are of one of two kinds:

    - On a processor each has its share of the cores. A frame of the only session that has any gets the whole device:
      alone it is done sooner, but beside others the device does more, because the small layers of a network and the
      work around it use one core only.
    - On a GPU they are frames in flight, each with a stream of its own on the device. While the networks of one lane
      run, the threads of others resize, upload and read results. They share the device's time as they need it.

    Key frames that overlap with others (see `StreamSession`) are computed in steps, one slice of the feature network
    each, on the same lanes. A step runs where no frame can: a share of them after each frame of the session, as soon as
    its result is handed out, so that the next frame finds the device free. If frames of other sessions keep the device
    busy, the steps run when it is the next frame's turn, before that frame. So no frame ever waits for more than the
    step that is running, and the share of its own session. Only the session decides which steps these are, so results
    don't depend on the time that anything takes. The frames and steps of a session never run at the same time.
    """

    def __init__(self, lanes: int = 1, *, in_flight: bool = False) -> None:
        """Start without sessions.

        Args:
            lanes: The number of frames that run at the same time. With one, each frame gets the whole device.
            in_flight: Whether lanes are frames in flight on the whole device, see `Engine.in_flight`.
        """
        self.lanes = lanes
        self.in_flight = in_flight
        self._pool = ThreadPoolExecutor(max_workers=lanes, thread_name_prefix="keywarp-device")
        self._lock = Lock()
        self._closed = False
        self._depth = 0
        self._waiting: deque[_Job] = deque()
        self._running: set[StreamSession] = set()
        self._upcoming: dict[StreamSession, None] = {}  # sessions with a key frame that is computed in steps, in order
        self._free = list(range(lanes))  # the lanes on which nothing runs
        self._shared = SharedTime()
        self._done_at: WeakKeyDictionary[StreamSession, float] = WeakKeyDictionary()  # each session's last frame

    @property
    def depth(self) -> int:
        """The number of frames that are waiting or running."""
        return self._depth

    def submit(
        self,
        session: StreamSession,
        frame: Frame,
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
            return session.process(frame, index, skipped, vectors, timestamp, gap=gap, lane=lane)

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

    def _wake(self) -> None:
        """Wake a free lane. A lane that is busy looks for work itself when it is done."""
        if self._free:
            self._pool.submit(self._run_jobs, self._free.pop())

    def _run_jobs(self, lane: int) -> None:
        """Run jobs and steps on a lane, until there are none that can run."""
        while taken := self._take(lane):
            job, session, alone = taken
            share = None if alone else lane
            settle: Callable[[], None] | None = None
            if job is None:
                session.advance(share, self._clock)
            elif job.future.set_running_or_notify_cancel():
                settle = self._run(job, share)
            with self._lock:
                self._running.discard(session)
                self._shared.count(-1)
                self._done_at[session] = time.perf_counter()
                if session.useful:
                    self._upcoming[session] = None
                    if job and not self._closed:
                        self._wake()
            if settle:  # whoever waits for the result may submit the session's next frame at once
                settle()

    def _run(self, job: _Job, lane: int | None) -> Callable[[], None]:
        """Run a job, and return what settles its future."""
        started, given = time.perf_counter(), self._clock()
        turn = started - max(job.queued_at, self._done_at.get(job.session, job.queued_at))
        try:
            result = job.process(lane)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
            return partial(job.future.set_exception, error)
        share = 1.0 if lane is None else 1 / self.lanes
        if self.in_flight:
            share = min(1.0, (self._clock() - given) / max(time.perf_counter() - started, 1e-9))
        result = replace(result, queue=started - job.queued_at, turn=turn, share=share)
        return partial(job.future.set_result, result)

    def _take(self, lane: int) -> tuple[_Job | None, StreamSession, bool] | None:
        """Return the next job, or None for a step, its session, and whether it gets the whole device.

        Without either, free the lane.
        """
        with self._lock:
            for place, job in enumerate(self._waiting):
                if job.session in self._running:
                    continue
                if job.session.owed:
                    return None, job.session, self._start(job.session)
                del self._waiting[place]
                return job, job.session, self._start(job.session)
            for session in [] if self._closed else [*self._upcoming]:
                if session in self._running:
                    continue
                del self._upcoming[session]
                if session.useful:
                    return None, session, self._start(session)
            self._free.append(lane)
            return None

    def _start(self, session: StreamSession) -> bool:
        """Let a session run, and return whether it gets the whole device."""
        alone = not self._running and all(other.session is session for other in self._waiting)
        self._running.add(session)
        self._shared.count(1)
        return (alone and not self.in_flight) or self.lanes == 1

    def _clock(self) -> float:
        """Return the seconds that a frame which runs all the time has had of the device."""
        if not self.in_flight:
            return time.perf_counter()
        with self._lock:
            return self._shared.given

    def _finished(self, _: Future[FrameResult]) -> None:
        with self._lock:
            self._depth -= 1
