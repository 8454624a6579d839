"""A driver without a GPU that proves that no memory is used by two at once, whatever the device's timing.

It keeps vector clocks: of every stream, and of every thread of the host. Work in a stream comes after what its thread
did before it was queued, and after the work before it in the stream. An event carries the clock of its stream to the
streams that follow it and to the threads that wait for it. Threads pass theirs on by locks, futures and the pool of
buffers. Whoever reads memory must come after whoever wrote it last, and whoever writes, after all who used it before.
"""

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from tests.engines.tensorrt.fake_driver import FakeDriver, HostExecutable

Clock = dict[Hashable, int]


class RaceError(AssertionError):
    """Two accesses whose order nothing decides."""


@dataclass
class _Uses:
    """The last uses of memory: who, at what time of its own, and what it did."""

    write: tuple[Hashable, int, str] | None = None
    reads: dict[Hashable, tuple[int, str]] = field(default_factory=dict)


@dataclass
class RaceDriver(FakeDriver):
    """See `FakeDriver`. Memory is told apart by the address at which it begins."""

    clocks: defaultdict[Hashable, Clock] = field(default_factory=lambda: defaultdict(Clock))
    passed_on: dict[Hashable, Clock] = field(default_factory=dict)  # the clocks of events, locks and the like
    uses: defaultdict[int, _Uses] = field(default_factory=lambda: defaultdict(_Uses))
    captured: dict[int, list[Callable[[int], None]]] = field(default_factory=dict)  # uses by streams, then by graphs
    checked: int = 0  # uses
    races: list[str] = field(default_factory=list)  # also if a thread swallows the error

    # -- order ---------------------------------------------------------------------------------------------------------

    def host(self) -> Hashable:
        return "thread", threading.get_ident()

    def hand_over(self, thing: Hashable, source: Hashable | None = None) -> None:
        """Let whoever takes a thing come after what the source, or this thread, did so far."""
        with self.lock:
            source = self.host() if source is None else source
            _join(self.passed_on.setdefault(thing, {}), self.clocks[source])
            self._tick(source)

    def take_over(self, thing: Hashable, target: Hashable | None = None) -> None:
        with self.lock:
            _join(self.clocks[self.host() if target is None else target], self.passed_on.get(thing, {}))

    def _tick(self, who: Hashable) -> None:
        self.clocks[who][who] = self.clocks[who].get(who, 0) + 1

    # -- uses ----------------------------------------------------------------------------------------------------------

    def use(self, who: Hashable, what: str, reads: Iterable[int] = (), writes: Iterable[int] = ()) -> None:
        """Check uses of memory, and remember them."""
        with self.lock:
            self.checked += 1
            if who != self.host():  # queued by this thread
                _join(self.clocks[who], self.clocks[self.host()])
                self._tick(self.host())
            self._tick(who)
            now, clock = self.clocks[who][who], self.clocks[who]
            for address in reads:
                uses = self.uses[address]
                self._after(clock, uses.write, f"{what} reads {address:#x}")
                uses.reads[who] = now, what
            for address in writes:
                uses = self.uses[address]
                self._after(clock, uses.write, f"{what} writes {address:#x}")
                for reader, (time, earlier) in uses.reads.items():
                    self._after(clock, (reader, time, earlier), f"{what} writes {address:#x}")
                uses.write, uses.reads = (who, now, what), {}

    def _after(self, clock: Clock, use: tuple[Hashable, int, str] | None, what: str) -> None:
        if use is not None and clock.get(use[0], 0) < use[1]:
            self.races.append(f"{what} without waiting for {use[2]}")
            raise RaceError(self.races[-1])

    def work(self, stream: int, what: str, reads: Iterable[int] = (), writes: Iterable[int] = ()) -> None:
        """Use memory in a stream, or later if the work is captured."""
        reads, writes = tuple(reads), tuple(writes)
        if stream in self.captures:
            self.captured.setdefault(stream, []).append(partial(self._replayed, what, reads, writes))
        else:
            self.use(("stream", stream), what, reads, writes)

    def _replayed(self, what: str, reads: tuple[int, ...], writes: tuple[int, ...], stream: int) -> None:
        self.use(("stream", stream), what, reads, writes)

    # -- the driver ----------------------------------------------------------------------------------------------------

    def close_stream(self, stream: int) -> None:
        if self.streams.pop(stream):
            self.races.append("a stream is closed while it has work")

    def unpin(self, address: int) -> None:
        with suppress(RaceError):  # finalizers can't raise, but the race is remembered
            self.use(self.host(), "the end of page-locked memory", writes=[address])
        self.uses.pop(address, None)
        del self.pinned[address]

    def upload(self, address: int, source: NDArray[Any], stream: int) -> None:
        self.use(self.host(), "the host", writes=[source.ctypes.data])  # it just did
        self.work(stream, "an upload", [source.ctypes.data], [address])
        super().upload(address, source, stream)

    def download(self, target: NDArray[Any], address: int, stream: int) -> None:
        self.work(stream, "a download", [address], [target.ctypes.data])
        super().download(target, address, stream)

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        self.work(stream, "a copy", [source], [target])
        super().copy(target, source, size, stream)

    def record(self, event: int, stream: int) -> None:
        with self.lock:
            _join(self.clocks["stream", stream], self.clocks[self.host()])
            self.passed_on[event] = {}  # what was recorded before counts no more
            self.hand_over(event, ("stream", stream))
        super().record(event, stream)

    def wait(self, event: int) -> None:
        super().wait(event)
        self.take_over(event)

    def follow(self, event: int, stream: int) -> None:
        super().follow(event, stream)
        self.take_over(event, ("stream", stream))

    def synchronize(self, stream: int) -> None:
        super().synchronize(stream)
        self.hand_over(("end", stream), ("stream", stream))
        self.take_over(("end", stream))

    def end_capture(self, stream: int) -> int:
        graph = super().end_capture(stream)
        self.captured[graph] = self.captured.pop(stream, [])
        return graph

    def launch_graph(self, graph: int, stream: int) -> None:
        for use in self.captured[graph]:
            use(stream)
        super().launch_graph(graph, stream)


class CheckedExecutable(HostExecutable):
    """An executable that tells a `RaceDriver` what it uses."""

    def __init__(self, model: Any, driver: RaceDriver) -> None:
        super().__init__(model, driver)
        self._races, self._name = driver, model.graph.name

    def enqueue(self, addresses: Mapping[str, int], stream: int) -> None:
        self._races.work(
            stream, self._name, [addresses[name] for name in self.inputs], [addresses[name] for name in self.outputs]
        )
        super().enqueue(addresses, stream)


class CheckedLock(AbstractContextManager["CheckedLock"]):
    """A lock that passes on the clocks of its threads."""

    def __init__(self, driver: RaceDriver) -> None:
        self._driver, self._lock = driver, threading.Lock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """See `threading.Lock.acquire`; conditions call it."""
        taken = self._lock.acquire(blocking, timeout)
        if taken:
            self._driver.take_over(self)
        return taken

    def release(self) -> None:
        self._driver.hand_over(self)
        self._lock.release()

    def __enter__(self) -> "CheckedLock":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class CheckedReturns(deque[tuple[int, int]]):
    """The buffers that threads give back to a pool, with the clocks of these threads."""

    def __init__(self, driver: RaceDriver) -> None:
        super().__init__()
        self._driver = driver

    def append(self, item: tuple[int, int]) -> None:
        self._driver.hand_over(("buffer", item[1]))
        super().append(item)

    def popleft(self) -> tuple[int, int]:
        item = super().popleft()
        self._driver.take_over(("buffer", item[1]))
        return item


def _join(clock: Clock, other: Clock) -> None:
    for who, time in other.items():
        clock[who] = max(clock.get(who, 0), time)
