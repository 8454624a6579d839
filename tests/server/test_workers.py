"""The threads that streams share."""

import threading
import time
from collections.abc import Iterator

import pytest

from keywarp.server.workers import LONG, Share, Workers
from tests.server.conftest import PATIENCE, eventually

THREADS = 3


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(THREADS, "test")
    yield workers
    workers.shutdown()


class Gate:
    """A job that lasts until it is let through."""

    def __init__(self) -> None:
        self.running = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self) -> None:
        self.running.release()
        assert self.open.wait(PATIENCE)


def known(share: Share, seconds: float) -> Share:
    """Let a share's jobs take so long, as far as the threads know."""
    share.submit(time.sleep, 0).result(PATIENCE)
    eventually(lambda: not share.running)
    share.usual = seconds
    return share


def test_a_job_has_its_result_or_error(workers: Workers) -> None:
    share = workers.share()
    assert share.submit(divmod, 7, 2).result(PATIENCE) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        share.submit(divmod, 7, 0).result(PATIENCE)


def test_the_jobs_of_a_share_begin_in_order(workers: Workers) -> None:
    share, gate, order = known(workers.share(), 0.0), Gate(), list[int]()
    busy = [share.submit(gate) for _ in range(THREADS)]
    rest = [share.submit(order.append, i) for i in range(20)]
    for _ in range(THREADS - 1):
        assert gate.running.acquire(timeout=PATIENCE)
    gate.open.set()
    for future in [*busy, *rest]:
        future.result(PATIENCE)
    assert sorted(order) == [*range(20)]


def test_the_share_that_has_used_least_comes_first(workers: Workers) -> None:
    greedy, modest, gate, order = known(workers.share(), 0.0), known(workers.share(), 0.0), Gate(), list[str]()
    busy = [greedy.submit(gate) for _ in range(THREADS)]
    for _ in range(THREADS):
        assert gate.running.acquire(timeout=PATIENCE)
    greedy.used = modest.used + 1.0
    jobs = [greedy.submit(order.append, "greedy") for _ in range(5)]
    jobs += [modest.submit(order.append, "modest")]
    gate.open.set()
    for future in [*busy, *jobs]:
        future.result(PATIENCE)
    assert order.index("modest") < THREADS


def test_long_jobs_leave_a_thread_to_short_ones(workers: Workers) -> None:
    slow, gate = [known(workers.share(), 2 * LONG) for _ in range(2 * THREADS)], Gate()
    busy = [share.submit(gate) for share in slow]
    for _ in range(THREADS - 1):
        assert gate.running.acquire(timeout=PATIENCE)
    assert not gate.running.acquire(timeout=0.1), "all threads have long jobs"
    quick = workers.share()
    quick.usual = 0.0
    assert quick.submit(divmod, 7, 2).result(PATIENCE) == (3, 1)
    gate.open.set()
    for future in busy:
        future.result(PATIENCE)


def test_a_cancelled_job_does_not_run_and_the_end_cancels_what_waits() -> None:
    workers = Workers(2, "test")
    share, gate, ran = known(workers.share(), 0.0), Gate(), list[int]()
    busy = [share.submit(gate) for _ in range(2)]
    for _ in busy:
        assert gate.running.acquire(timeout=PATIENCE)
    cancelled, waiting = share.submit(ran.append, 1), share.submit(ran.append, 2)
    assert cancelled.cancel()
    threading.Timer(0.1, gate.open.set).start()
    workers.shutdown()
    assert waiting.cancelled()
    assert not ran
    with pytest.raises(RuntimeError):
        share.submit(ran.append, 3)
