"""A CUDA driver without a GPU, which keeps device memory on the host and fails where a real one would corrupt memory.

Queued work runs only when its stream is synchronised, so that reading too early reads garbage. Using an address that
isn't allocated, freeing twice and leaking are errors.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from threading import RLock, local
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from keywarp.engines.backends.tensorrt.driver import OutOfDeviceMemoryError
from keywarp.engines.backends.tensorrt.program import TensorSpec

GARBAGE = 0xCD
_thread = local()  # its `driver` is that of the thread's current GPU, if there is one


@dataclass
class FakeDriver:
    """See `keywarp.engines.backends.tensorrt.driver.Driver`."""

    index: int = 0
    context: int = 0x1000
    capacity: int = 2**40  # bytes
    blocks: dict[int, NDArray[np.uint8]] = field(default_factory=dict)  # device memory by address
    pinned: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    streams: dict[int, list[Callable[[], None]]] = field(default_factory=dict)
    events: dict[int, int | None] = field(default_factory=dict)  # their times, or None until they are over
    recorded: dict[int, int] = field(default_factory=dict)  # the stream of each event
    graphs: dict[int, list[Callable[[], None]]] = field(default_factory=dict)
    captures: dict[int, list[Callable[[], None]]] = field(default_factory=dict)  # the work before, by stream
    lock: Any = field(default_factory=RLock)  # held by each call, as threads of several lanes call
    kernels: dict[int, tuple[bytes, str]] = field(default_factory=dict)
    launches: list[tuple[str, tuple[int, ...], tuple[int | float, ...]]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: count(0x7000_0000_0000, 0x1000_0000))

    def activate(self) -> None:
        _thread.driver = self

    def allocate(self, size: int) -> int:
        assert size > 0, "the driver refuses to allocate 0 bytes"
        if sum(block.size for block in self.blocks.values()) + size > self.capacity:
            raise OutOfDeviceMemoryError("full")
        address = next(self.numbers)
        self.blocks[address] = np.full(size, GARBAGE, np.uint8)
        return address

    def free(self, address: int) -> None:
        for stream in [*self.streams]:
            self.synchronize(stream)
        assert address in self.blocks, f"{address:#x} was freed before, or never allocated"
        del self.blocks[address]

    def pin(self, size: int) -> NDArray[np.uint8]:
        assert size > 0, "the driver refuses to pin 0 bytes"
        memory = np.full(size, GARBAGE, np.uint8)
        self.pinned[memory.ctypes.data] = memory
        return memory

    def unpin(self, address: int) -> None:
        assert not any(self.streams.values()), "page-locked memory is freed while a stream may use it"
        del self.pinned[address]

    def open_stream(self) -> int:
        stream = next(self.numbers)
        self.streams[stream] = []
        return stream

    def close_stream(self, stream: int) -> None:
        assert not self.streams.pop(stream), "a stream is closed while it has work"

    def upload(self, address: int, source: NDArray[Any], stream: int) -> None:
        self.check_pinned(source)

        def copy() -> None:
            self.memory(address, source.nbytes)[:] = source.view(np.uint8).reshape(-1)

        self.streams[stream].append(copy)

    def download(self, target: NDArray[Any], address: int, stream: int) -> None:
        self.check_pinned(target)

        def copy() -> None:
            target.view(np.uint8).reshape(-1)[:] = self.memory(address, target.nbytes)

        self.streams[stream].append(copy)

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        def copy() -> None:
            self.memory(target, size)[:] = self.memory(source, size)

        self.streams[stream].append(copy)

    def synchronize(self, stream: int) -> None:
        with self.lock:
            while self.streams[stream]:
                self.streams[stream].pop(0)()

    def open_event(self) -> int:
        event = next(self.numbers)
        self.events[event] = None
        return event

    def close_event(self, event: int) -> None:
        del self.events[event]

    def record(self, event: int, stream: int) -> None:
        self.events[event] = None
        self.recorded[event] = stream
        self.streams[stream].append(lambda: self.events.__setitem__(event, next(self.numbers)))

    def wait(self, event: int) -> None:
        """Run the work of the event's stream up to the event, as late as the device may."""
        self._reach(event)

    def _reach(self, event: int) -> None:
        with self.lock:
            stream = self.recorded[event]
            while self.events[event] is None:
                self.streams[stream].pop(0)()

    def follow(self, event: int, stream: int) -> None:
        self.streams[stream].append(lambda: self._reach(event))

    def elapsed(self, start: int, end: int) -> float:
        first, last = self.events[start], self.events[end]
        assert first is not None, "an event is read before it is over"
        assert last is not None, "an event is read before it is over"
        return (last - first) / 0x1000_0000 / 1000

    def begin_capture(self, stream: int) -> None:
        assert stream not in self.captures
        self.captures[stream], self.streams[stream] = self.streams[stream], []

    def end_capture(self, stream: int) -> int:
        graph = next(self.numbers)
        self.graphs[graph], self.streams[stream] = self.streams[stream], self.captures.pop(stream)
        return graph

    def launch_graph(self, graph: int, stream: int) -> None:
        self.streams[stream].extend(self.graphs[graph])

    def close_graph(self, graph: int) -> None:
        del self.graphs[graph]

    def load_kernel(self, image: bytes, name: str) -> int:
        kernel = next(self.numbers)
        self.kernels[kernel] = image, name
        return kernel

    def launch(
        self,
        kernel: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        addresses: tuple[int, ...],
        numbers: tuple[int | float, ...],
        stream: int,
    ) -> None:
        assert min(*grid, *block) > 0
        assert stream in self.streams
        self.launches.append((self.kernels[kernel][1], addresses, numbers))

    # -- for tests -----------------------------------------------------------------------------------------------------

    def memory(self, address: int, size: int) -> NDArray[np.uint8]:
        """Return device memory that is in use."""
        assert address in self.blocks, f"{address:#x} is used after it was freed"
        assert size <= self.blocks[address].size, f"{size} bytes are used of {self.blocks[address].size}"
        return self.blocks[address][:size]

    def check_pinned(self, array: NDArray[Any]) -> None:
        """Check that memory is page-locked, since the device can't reach other memory."""
        start, end = array.ctypes.data, array.ctypes.data + array.nbytes
        known = any(address <= start and end <= address + memory.nbytes for address, memory in self.pinned.items())
        assert known, "memory is copied that isn't page-locked"

    def assert_nothing_left(self) -> None:
        assert not self.blocks, f"{len(self.blocks)} buffers leak"
        assert not self.pinned, f"{len(self.pinned)} page-locked buffers leak"
        assert not self.streams, "streams leak"
        assert not self.events, "events leak"
        assert not self.graphs, "CUDA graphs leak"


def active() -> FakeDriver | None:
    """Return the driver of the thread's current GPU."""
    return getattr(_thread, "driver", None)


class HostExecutable:
    """An `Executable` whose graph ONNX Runtime runs on the fake device's memory."""

    def __init__(self, model: onnx.ModelProto, driver: FakeDriver) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self._session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._driver = driver
        self.inputs = {i.name: _spec(i) for i in self._session.get_inputs()}
        self.outputs = {o.name: _spec(o) for o in self._session.get_outputs()}

    def enqueue(self, addresses: Mapping[str, int], stream: int) -> None:
        assert addresses.keys() == {*self.inputs, *self.outputs}
        assert active() is self._driver, "the thread works for another GPU"

        def run() -> None:
            values = {name: self._tensor(addresses[name], spec).copy() for name, spec in self.inputs.items()}
            for name, value in zip(self.outputs, self._session.run(list(self.outputs), values), strict=True):
                self._tensor(addresses[name], self.outputs[name])[...] = value

        self._driver.streams[stream].append(run)

    def _tensor(self, address: int, spec: TensorSpec) -> NDArray[Any]:
        return self._driver.memory(address, spec.size).view(spec.dtype).reshape(spec.shape)


def _spec(end: Any) -> TensorSpec:
    names = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
    return TensorSpec(np.dtype(names[end.type]), tuple(end.shape))
