"""Run a plan: copy tensors to the device and back in one stream, and measure the time of each part."""

import logging
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


class TensorRTProgram:
    """A program that runs an executable."""

    def __init__(
        self, executable: Executable, resident: frozenset[str], driver: Driver, memory: DeviceMemory, name: str
    ) -> None:
        """Allocate the memory that every run needs.

        Args:
            executable: The loaded plan.
            resident: The names of the outputs that stay on the device.
            driver: The device's driver.
            memory: The device's pool of buffers.
            name: The graph's name, for the log.

        Raises:
            BackendError: If the device is full.
        """
        self._executable = executable
        self._driver = driver
        self._memory = memory
        self._name = name
        self._resident = resident
        # Allocated with the first host array, since most inputs stay on the device.
        self._inputs: dict[str, _Staged] = {}
        self._outputs = {n: self._stage(spec) for n, spec in executable.outputs.items() if n not in resident}
        self._stream = driver.open_stream()
        call_when_collected(self, driver.close_stream, self._stream)
        self._events = tuple(driver.open_event() for _ in range(4))  # start, uploaded, computed, downloaded
        for event in self._events:
            call_when_collected(self, driver.close_event, event)
        self.timing: Timing | None = None  # timing of the last run

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Program.run`."""
        start, uploaded, computed, downloaded = self._events
        stream, driver = self._stream, self._driver
        driver.activate()  # the executable runs on the thread's current GPU
        kept = {name: self._memory.buffer(self._executable.outputs[name].size) for name in self._resident}
        addresses = {name: buffer.address for name, buffer in kept.items()}
        addresses |= {name: staged.device.address for name, staged in self._outputs.items()}
        # Copies on the host come first, so that they aren't part of the measured time.
        for name in self._executable.inputs:
            if name not in inputs:
                raise BackendError(f"the graph {self._name} needs the input {name}")
            addresses[name] = self._input(name, inputs[name])
        driver.record(start, stream)
        for name in self._executable.inputs:
            if not isinstance(inputs[name], DeviceTensor):
                staged = self._inputs[name]
                driver.upload(staged.device.address, staged.host, stream)
        driver.record(uploaded, stream)
        try:
            self._executable.enqueue(addresses, stream)
            driver.record(computed, stream)
            for staged in self._outputs.values():
                driver.download(staged.host, staged.device.address, stream)
            driver.record(downloaded, stream)
        finally:
            driver.synchronize(stream)  # queued work uses buffers that may be released from here on
        timing = self.timing = Timing(*(driver.elapsed(*ends) for ends in pairwise(self._events)))
        parts = 1000 * timing.upload, 1000 * timing.compute, 1000 * timing.download
        log.debug("%s: upload %.2f ms, compute %.2f ms, download %.2f ms", self._name, *parts)
        tensors: dict[str, Tensor] = {name: DeviceTensor(buffer) for name, buffer in kept.items()}
        return tensors | {name: staged.host for name, staged in self._outputs.items()}

    def _input(self, name: str, tensor: Tensor) -> int:
        """Return the device address of an input. A host array is copied to page-locked memory first."""
        spec = self._executable.inputs[name]
        if isinstance(tensor, DeviceTensor):
            buffer: Buffer = tensor.value
            if buffer.size != spec.size:
                raise BackendError(f"the graph {self._name} expects {name} of {spec.size} bytes, not {buffer.size}")
            return buffer.address
        if tensor.shape != spec.shape:
            raise BackendError(f"the graph {self._name} expects {name} of shape {spec.shape}, not {tensor.shape}")
        staged = self._inputs.get(name)
        if staged is None:
            staged = self._inputs[name] = self._stage(spec)
        np.copyto(staged.host, tensor, casting="same_kind")  # converts fp32 to fp16 if the plan's input is fp16
        return staged.device.address

    def _stage(self, spec: TensorSpec) -> _Staged:
        pinned = self._driver.pin(max(spec.size, 1))
        call_when_collected(self, self._driver.unpin, pinned.ctypes.data)
        host = pinned[: spec.size].view(spec.dtype).reshape(spec.shape)
        return _Staged(host, self._memory.buffer(max(spec.size, 1)))
