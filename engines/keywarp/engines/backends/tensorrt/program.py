"""Run a plan: copy tensors to the device and back in one stream, and measure the time of each part."""

import logging
import os
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.backends.interface import DeviceTensor, Tensor
from keywarp.engines.backends.tensorrt.device_memory import Buffer, DeviceMemory, Event, call_when_collected
from keywarp.engines.backends.tensorrt.driver import Driver
from keywarp.engines.errors import BackendError

VARIABLE: Final = "KEYWARP_CUDA_GRAPHS"  # environment variable: 0 launches every kernel of every run by itself
log = logging.getLogger(__name__)


def uses_cuda_graphs() -> bool:
    """Return whether runs are repeated as CUDA graphs, unless the user doesn't want that."""
    return os.environ.get(VARIABLE) != "0"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The data type and shape of a plan's input or output."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The tensor's size in bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


class Executable(Protocol):
    """A plan that is loaded on the device."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """The inputs by name."""
        ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """The outputs by name."""
        ...

    def enqueue(self, addresses: Mapping[str, int], stream: int) -> None:
        """Queue one run on buffers of the device.

        Args:
            addresses: The device addresses of all inputs and outputs, by name.
            stream: The stream to queue it in.

        Raises:
            BackendError: If the device refuses the run.
        """
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one run, measured by the device's clock."""

    upload: float
    compute: float
    download: float


@dataclass(frozen=True, slots=True)
class _Staged:
    """Page-locked host memory for an input or output, and its counterpart on the device."""

    host: NDArray[Any]
    device: Buffer


@dataclass(frozen=True, slots=True)
class _Replay:
    """A run as a CUDA graph, which always uses the same addresses. Tensors that stay on the device are copied there."""

    graph: int
    moved: Mapping[str, Buffer]  # the fixed buffers of such inputs and outputs


@dataclass(slots=True, eq=False)
class _Slot:
    """What one run needs on the host and the device, until its results were read."""

    outputs: dict[str, _Staged]
    events: tuple[Event, Event, Event, Event]  # start, uploaded, computed, downloaded
    inputs: dict[str, _Staged] = field(default_factory=dict)  # made with the first host array, since most stay there
    runs: int = 0
    replay: _Replay | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """What a run uses, so that no buffer is used for something else while it is under way."""

    slot: _Slot
    kept: Mapping[str, Buffer]
    inputs: Mapping[str, Tensor]


class Flight:
    """A run that is queued on the device."""

    def __init__(self, program: "TensorRTProgram", run: _Run) -> None:
        self._program, self._run = program, run

    def collect(self) -> dict[str, Tensor]:
        """Wait for the run, and return all outputs; see `Program.run`.

        If all outputs stay on the device, nothing is waited for, since the streams of programs that use them wait.
        Host arrays are overwritten when the program has queued as many further runs as it has slots.

        Raises:
            BackendError: If the device failed, or the program has waited for the run because it needed the slot.
        """
        run = self._run
        if run.slot.outputs:
            self._program.land(run)
        tensors: dict[str, Tensor] = {name: DeviceTensor(buffer) for name, buffer in run.kept.items()}
        return tensors | {name: staged.host for name, staged in run.slot.outputs.items()}


class TensorRTProgram:
    """A program that runs an executable, in a stream of its own.

    `submit` queues a run and returns at once, so that the host can prepare the next frame while the device computes.
    As many runs as there are slots can be under way. Tensors on the device may come from the streams of other programs,
    whose runs are waited for by the stream, not by the host.
    """

    def __init__(
        self,
        executable: Executable,
        resident: frozenset[str],
        driver: Driver,
        memory: DeviceMemory,
        name: str,
        slots: int = 1,
        *,
        replays: bool = False,
    ) -> None:
        """Allocate the memory that every run needs.

        Args:
            executable: The loaded plan.
            resident: The names of the outputs that stay on the device.
            driver: The device's driver.
            memory: The device's pool of buffers.
            name: The graph's name, for the log.
            slots: The number of runs that can be under way at the same time.
            replays: Whether runs after the first of a slot are launched as a CUDA graph, in one call of the driver.

        Raises:
            BackendError: If the device is full.
        """
        self._executable = executable
        self._driver = driver
        self._memory = memory
        self._name = name
        self._resident = resident
        self._replays = replays
        self._stream = driver.open_stream()
        self._pinned: list[int] = []
        self._graphs: list[int] = []
        call_when_collected(self, _close, driver, self._stream, self._pinned, self._graphs)
        self._free = deque(self._slot() for _ in range(slots))
        self._runs: deque[_Run] = deque()  # that are under way, in the order of the stream
        self.timing: Timing | None = None  # timing of the last run that ended

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Program.run`."""
        return self.submit(inputs).collect()

    def submit(self, inputs: Mapping[str, Tensor]) -> Flight:
        """Queue a run. If no slot is free, the oldest run is waited for, whose results are lost.

        Args:
            inputs: See `Program.run`. Host arrays may be changed when this returns.

        Raises:
            BackendError: If an input is missing or has another shape, or the device refuses the run.
        """
        driver, stream = self._driver, self._stream
        driver.activate()  # the executable runs on the thread's current GPU
        if not self._free:
            self.land(self._runs[0])
        slot = self._free[0]
        start, uploaded, computed, downloaded = slot.events
        kept = {name: self._memory.buffer(self._executable.outputs[name].size) for name in self._resident}
        addresses = {name: staged.device.address for name, staged in slot.outputs.items()}
        moved: dict[str, Buffer] = {}
        # Copies on the host come first, so that they aren't part of the measured time.
        for name in self._executable.inputs:
            if name not in inputs:
                raise BackendError(f"the graph {self._name} needs the input {name}")
            tensor = inputs[name]
            if isinstance(tensor, DeviceTensor):
                moved[name] = self._on_device(name, tensor.value)
            else:
                addresses[name] = self._to_pinned(slot, name, tensor)
        try:
            for buffer in moved.values():
                self._follow(buffer)
            driver.record(start.number, stream)
            for name in self._executable.inputs.keys() - moved:
                staged = slot.inputs[name]
                driver.upload(staged.device.address, staged.host, stream)
            driver.record(uploaded.number, stream)
            self._compute(slot, addresses, moved, kept)
            driver.record(computed.number, stream)
            for staged in slot.outputs.values():
                driver.download(staged.host, staged.device.address, stream)
            driver.record(downloaded.number, stream)
        except BaseException:
            driver.synchronize(stream)  # queued work uses buffers that are released from here on
            raise
        for buffer in kept.values():
            buffer.written = computed
        run = _Run(self._free.popleft(), kept, inputs)
        self._runs.append(run)
        return Flight(self, run)

    def land(self, run: _Run) -> None:
        """Wait for a run and free its slot.

        Raises:
            BackendError: If the device failed, or that was done before.
        """
        if run not in self._runs:
            raise BackendError(f"a run of the graph {self._name} wasn't collected in time, or was collected before")
        events = [event.number for event in run.slot.events]
        try:
            self._driver.wait(events[-1])
        finally:
            self._runs.remove(run)
            self._free.append(run.slot)
            for buffer in run.kept.values():
                buffer.written = None
        timing = self.timing = Timing(*(self._driver.elapsed(*ends) for ends in pairwise(events)))
        parts = 1000 * timing.upload, 1000 * timing.compute, 1000 * timing.download
        log.debug("%s: upload %.2f ms, compute %.2f ms, download %.2f ms", self._name, *parts)

    def _compute(
        self, slot: _Slot, addresses: Mapping[str, int], moved: Mapping[str, Buffer], kept: Mapping[str, Buffer]
    ) -> None:
        """Queue the executable. The first run of a slot is never replayed, since TensorRT prepares itself in it."""
        slot.runs += 1
        driver, stream = self._driver, self._stream
        replay = slot.replay
        if replay is None and self._replays and slot.runs > 1:
            replay = slot.replay = self._capture(addresses, {**moved, **kept})
        if replay is None or replay.moved.keys() != moved.keys() | kept.keys():
            tensors = {name: buffer.address for name, buffer in (*moved.items(), *kept.items())}
            self._executable.enqueue({**addresses, **tensors}, stream)
            return
        for name, buffer in moved.items():
            driver.copy(replay.moved[name].address, buffer.address, buffer.size, stream)
        driver.launch_graph(replay.graph, stream)
        for name, buffer in kept.items():
            driver.copy(buffer.address, replay.moved[name].address, buffer.size, stream)

    def _capture(self, addresses: Mapping[str, int], moved: Mapping[str, Buffer]) -> _Replay | None:
        """Return a run as a CUDA graph, or None if TensorRT can't run in one."""
        driver, stream = self._driver, self._stream
        fixed = {name: self._memory.buffer(buffer.size) for name, buffer in moved.items()}
        try:
            driver.begin_capture(stream)
            try:
                self._executable.enqueue({**addresses, **{n: b.address for n, b in fixed.items()}}, stream)
            except BaseException:
                with suppress(BackendError):
                    self._graphs.append(driver.end_capture(stream))
                raise
            self._graphs.append(driver.end_capture(stream))
        except BackendError as error:
            self._replays = False
            log.warning(
                "the graph %s isn't run as a CUDA graph, so its launch takes longer: %s", self._name, str(error)
            )
            return None
        return _Replay(self._graphs[-1], fixed)

    def _follow(self, buffer: Buffer) -> None:
        """Let the stream wait for another one that still writes a buffer."""
        written = buffer.written
        if written is not None and written.stream != self._stream:
            self._driver.follow(written.number, self._stream)

    def _on_device(self, name: str, buffer: Buffer) -> Buffer:
        """Return the buffer of an input."""
        size = self._executable.inputs[name].size
        if buffer.size != size:
            raise BackendError(f"the graph {self._name} expects {name} of {size} bytes, not {buffer.size}")
        return buffer

    def _to_pinned(self, slot: _Slot, name: str, tensor: NDArray[Any]) -> int:
        """Copy an input to page-locked memory, and return the address that it is uploaded to."""
        spec = self._executable.inputs[name]
        if tensor.shape != spec.shape:
            raise BackendError(f"the graph {self._name} expects {name} of shape {spec.shape}, not {tensor.shape}")
        staged = slot.inputs.get(name)
        if staged is None:
            staged = slot.inputs[name] = self._stage(spec)
        np.copyto(staged.host, tensor, casting="same_kind")  # converts fp32 to fp16 if the plan's input is fp16
        return staged.device.address

    def _slot(self) -> _Slot:
        driver, outputs = self._driver, self._executable.outputs
        staged = {name: self._stage(spec) for name, spec in outputs.items() if name not in self._resident}
        start, uploaded, computed, downloaded = (Event(driver, self._stream) for _ in range(4))
        return _Slot(staged, (start, uploaded, computed, downloaded))

    def _stage(self, spec: TensorSpec) -> _Staged:
        pinned = self._driver.pin(max(spec.size, 1))
        self._pinned.append(pinned.ctypes.data)
        host = pinned[: spec.size].view(spec.dtype).reshape(spec.shape)
        return _Staged(host, self._memory.buffer(max(spec.size, 1)))


def _close(driver: Driver, stream: int, pinned: list[int], graphs: list[int]) -> None:
    """Free what a program had, before its buffers can be used for something else."""
    driver.synchronize(stream)
    for graph in graphs:
        driver.close_graph(graph)
    for address in pinned:
        driver.unpin(address)
    driver.close_stream(stream)
