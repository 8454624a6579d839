"""Run a plan: copy tensors to the device and back in one stream, and measure the time of each part."""

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.backends.interface import DeviceTensor, Tensor
from keywarp.engines.backends.tensorrt.device_memory import Buffer, DeviceMemory, call_when_collected
from keywarp.engines.backends.tensorrt.driver import Driver
from keywarp.engines.errors import BackendError

log = logging.getLogger(__name__)


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


@dataclass(frozen=True, slots=True, eq=False)
class _Slot:
    """What one run needs on the host and the device, until its results were read."""

    inputs: dict[str, _Staged]  # made with the first host array, since most inputs stay on the device
    outputs: dict[str, _Staged]
    events: tuple[int, int, int, int]  # start, uploaded, computed, downloaded


class Flight:
    """A run that is queued on the device."""

    def __init__(
        self, program: "TensorRTProgram", slot: _Slot, kept: Mapping[str, Buffer], inputs: Mapping[str, Tensor]
    ) -> None:
        """Take note of what the run uses, so that no buffer is used for something else while it is under way."""
        self._program, self.slot, self._kept, self._inputs = program, slot, kept, inputs

    def collect(self) -> dict[str, Tensor]:
        """Wait for the run, and return all outputs; see `Program.run`.

        Host arrays are overwritten when the program has queued as many further runs as it has slots.

        Raises:
            BackendError: If the device failed, or the program has waited for the run because it needed the slot.
        """
        self._program.land(self)
        tensors: dict[str, Tensor] = {name: DeviceTensor(buffer) for name, buffer in self._kept.items()}
        return tensors | {name: staged.host for name, staged in self.slot.outputs.items()}


class TensorRTProgram:
    """A program that runs an executable, in a stream of its own.

    `submit` queues a run and returns at once, so that the host can prepare the next frame while the device computes.
    As many runs as there are slots can be under way.
    """

    def __init__(
        self,
        executable: Executable,
        resident: frozenset[str],
        driver: Driver,
        memory: DeviceMemory,
        name: str,
        slots: int = 1,
    ) -> None:
        """Allocate the memory that every run needs.

        Args:
            executable: The loaded plan.
            resident: The names of the outputs that stay on the device.
            driver: The device's driver.
            memory: The device's pool of buffers.
            name: The graph's name, for the log.
            slots: The number of runs that can be under way at the same time.

        Raises:
            BackendError: If the device is full.
        """
        self._executable = executable
        self._driver = driver
        self._memory = memory
        self._name = name
        self._resident = resident
        self._stream = driver.open_stream()
        call_when_collected(self, driver.close_stream, self._stream)
        self._free = deque(self._slot() for _ in range(slots))
        self._flights: deque[Flight] = deque()  # in the order of the stream
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
            self.land(self._flights[0])
        slot = self._free[0]
        start, uploaded, computed, downloaded = slot.events
        kept = {name: self._memory.buffer(self._executable.outputs[name].size) for name in self._resident}
        addresses = {name: buffer.address for name, buffer in kept.items()}
        addresses |= {name: staged.device.address for name, staged in slot.outputs.items()}
        # Copies on the host come first, so that they aren't part of the measured time.
        for name in self._executable.inputs:
            if name not in inputs:
                raise BackendError(f"the graph {self._name} needs the input {name}")
            addresses[name] = self._input(slot, name, inputs[name])
        try:
            driver.record(start, stream)
            for name in self._executable.inputs:
                if not isinstance(inputs[name], DeviceTensor):
                    staged = slot.inputs[name]
                    driver.upload(staged.device.address, staged.host, stream)
            driver.record(uploaded, stream)
            self._executable.enqueue(addresses, stream)
            driver.record(computed, stream)
            for staged in slot.outputs.values():
                driver.download(staged.host, staged.device.address, stream)
            driver.record(downloaded, stream)
        except BaseException:
            driver.synchronize(stream)  # queued work uses buffers that are released from here on
            raise
        flight = Flight(self, self._free.popleft(), kept, inputs)
        self._flights.append(flight)
        return flight

    def land(self, flight: Flight) -> None:
        """Wait for a run and free its slot.

        Raises:
            BackendError: If the device failed, or that was done before.
        """
        if flight not in self._flights:
            raise BackendError(f"a run of the graph {self._name} wasn't collected in time, or was collected before")
        events = flight.slot.events
        try:
            self._driver.wait(events[-1])
        finally:
            self._flights.remove(flight)
            self._free.append(flight.slot)
        timing = self.timing = Timing(*(self._driver.elapsed(*ends) for ends in pairwise(events)))
        parts = 1000 * timing.upload, 1000 * timing.compute, 1000 * timing.download
        log.debug("%s: upload %.2f ms, compute %.2f ms, download %.2f ms", self._name, *parts)

    def _input(self, slot: _Slot, name: str, tensor: Tensor) -> int:
        """Return the device address of an input. A host array is copied to page-locked memory first."""
        spec = self._executable.inputs[name]
        if isinstance(tensor, DeviceTensor):
            buffer: Buffer = tensor.value
            if buffer.size != spec.size:
                raise BackendError(f"the graph {self._name} expects {name} of {spec.size} bytes, not {buffer.size}")
            return buffer.address
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
        events = driver.open_event(), driver.open_event(), driver.open_event(), driver.open_event()
        for event in events:
            call_when_collected(self, driver.close_event, event)
        return _Slot({}, staged, events)

    def _stage(self, spec: TensorSpec) -> _Staged:
        pinned = self._driver.pin(max(spec.size, 1))
        call_when_collected(self, self._driver.unpin, pinned.ctypes.data)
        host = pinned[: spec.size].view(spec.dtype).reshape(spec.shape)
        return _Staged(host, self._memory.buffer(max(spec.size, 1)))
