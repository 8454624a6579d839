"""Threads for decoding and encoding, which all streams share fairly.

Jobs can't be interrupted, so fairness is a question of whose job comes next: that of the stream which has used the
threads for the shortest time (start-time fair queueing). And one thread is kept free of streams whose jobs take long,
so that a stream with short ones doesn't wait until a long one ends.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LONG: Final = 0.05  # seconds; a JPEG of 1280x720 takes a tenth of it
_SMOOTHING: Final = 0.25  # weight of the newest job in what a share's jobs usually take


class Share(Executor):
    """One stream's part of the threads. Its jobs begin in order."""

    def __init__(self, workers: "Workers") -> None:
        """Begin without jobs. `Workers.share` makes shares."""
        self._workers = workers
        self.jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()  # that wait
        self.running = 0
        self.used = 0.0  # seconds, or what others had used when it was idle
        self.usual: float | None = None  # seconds of a job; None before the first

    @property
    def is_long(self) -> bool:
        """Whether its jobs take long, as far as it is known."""
        return self.usual is None or self.usual > LONG

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a job.

        Raises:
            RuntimeError: The threads were ended.
        """
        future: Future[T] = Future()
        self._workers.add(self, future, partial(fn, *args, **kwargs))
        return future


class Workers:
    """A number of threads, which begin with the first job."""

    def __init__(self, threads: int, name: str) -> None:
        """Set up the threads.

        Args:
            threads: Their number, at least 2.
            name: The beginning of their names.
        """
        self._number = threads
        self._name = name
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._waiting: dict[Share, None] = {}  # shares with jobs that wait, in the order of their last job
        self._running_long = 0
        self._used = 0.0  # what the share had used whose job began last
        self._turns: SimpleQueue[bool] = SimpleQueue()  # one for each job; False ends a thread
        self._passed = 0  # turns in which no job could begin
        self._closed = False

    def share(self) -> Share:
        """Make a share, which counts as much as each other."""
        return Share(self)

    def add(self, share: Share, future: Future[Any], job: Callable[[], Any]) -> None:
        """Queue a job of a share."""
        with self._lock:
            if self._closed:
                raise RuntimeError("no jobs can be added after the end")
            if not share.jobs and not share.running:
                share.used = max(share.used, self._used)  # nobody saves up for later
            share.jobs.append((future, job))
            self._waiting[share] = None
            if not self._threads:
                self._start()
        self._turns.put(True)

    def shutdown(self) -> None:
        """Cancel the jobs that wait, and wait for those that run."""
        with self._lock:
            self._closed = True
            cancelled = [future for share in self._waiting for future, _ in share.jobs]
            for share in self._waiting:
                share.jobs.clear()
            self._waiting.clear()
        for future in cancelled:
            future.cancel()
        for _ in self._threads:
            self._turns.put(False)
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        for number in range(self._number):
            thread = threading.Thread(target=self._work, name=f"{self._name}_{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while self._turns.get():
            with self._lock:
                if (share := self._next()) is None:
                    self._passed += bool(self._waiting)
                    continue
                future, job = share.jobs.popleft()
                if not share.jobs:
                    del self._waiting[share]
                is_long = share.is_long
                share.running += 1
                self._running_long += is_long
                self._used = share.used
            started = time.perf_counter()
            _run(future, job)
            del future, job  # which may hold a frame
            with self._lock:
                seconds = time.perf_counter() - started
                share.running -= 1
                self._running_long -= is_long
                share.used += seconds
                share.usual = seconds if share.usual is None else share.usual + _SMOOTHING * (seconds - share.usual)
                passed, self._passed = self._passed, 0
            del share
            for _ in range(passed):
                self._turns.put(True)

    def _next(self) -> Share | None:
        """Choose the share whose job comes next."""
        for_long = self._running_long < self._number - 1
        ready = (share for share in self._waiting if for_long or not share.is_long)
        return min(ready, key=lambda share: share.used, default=None)


def _run(future: Future[Any], job: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = job()
    except BaseException as error:  # noqa: BLE001 - raised again by whoever waits for the job
        future.set_exception(error)
        del future  # breaks the cycle with the error's traceback
    else:
        future.set_result(result)
