"""The calls of the CUDA driver that the TensorRT backend makes itself. TensorRT makes the others."""

import ctypes
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.errors import BackendError


class OutOfDeviceMemoryError(BackendError):
    """The device doesn't have enough free memory for a buffer."""


class Driver(Protocol):
    """One GPU. Addresses, streams, events and kernels are the driver's own numbers, and sizes are in bytes.

    Any thread may call it. All calls use the GPU's primary context, as TensorRT does. Only `activate` changes the GPU
    of the calling thread, because finalizers call `free` and others on threads that work for another GPU.
    """

    @property
    def context(self) -> int:
        """The handle of the GPU's primary context."""
        ...

    def activate(self) -> None:
        """Make this GPU the calling thread's current one, which TensorRT uses."""
        ...

    def allocate(self, size: int) -> int:
        """Reserve memory on the device.

        Raises:
            OutOfDeviceMemoryError: If the device doesn't have enough free memory.
        """
        ...

    def free(self, address: int) -> None:
        """Free device memory, once queued work that uses it is done."""
        ...

    def pin(self, size: int) -> NDArray[np.uint8]:
        """Reserve page-locked host memory, which the device can copy to and from asynchronously."""
        ...

    def unpin(self, address: int) -> None:
        """Free page-locked memory."""
        ...

    def open_stream(self) -> int:
        """Open a stream, a queue of work that runs in order."""
        ...

    def close_stream(self, stream: int) -> None:
        """Close a stream; queued work still runs."""
        ...

    def upload(self, address: int, source: NDArray[Any], stream: int) -> None:
        """Queue a copy from page-locked memory to the device."""
        ...

    def download(self, target: NDArray[Any], address: int, stream: int) -> None:
        """Queue a copy from the device to page-locked memory, which may be read after `synchronize`."""
        ...

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        """Queue a copy between two addresses of the device."""
        ...

    def synchronize(self, stream: int) -> None:
        """Wait until all work of a stream is done."""
        ...

    def open_event(self) -> int:
        """Open an event, a point in time on the device."""
        ...

    def close_event(self, event: int) -> None:
        """Close an event."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Record in `event` the time when the device has finished the work queued so far."""
        ...

    def wait(self, event: int) -> None:
        """Wait until the device has finished the work before a recorded event. Other Python threads run meanwhile."""
        ...

    def follow(self, event: int, stream: int) -> None:
        """Let the work that is queued in a stream from now on wait for what came before a recorded event."""
        ...

    def elapsed(self, start: int, end: int) -> float:
        """Return the seconds between two recorded events that are over."""
        ...

    def begin_capture(self, stream: int) -> None:
        """Let the work that this thread queues in a stream become part of a CUDA graph, without running it."""
        ...

    def end_capture(self, stream: int) -> int:
        """Return the CUDA graph of the work since `begin_capture`, ready to be launched.

        Raises:
            BackendError: If something was done that a CUDA graph can't hold. The stream can be used again.
        """
        ...

    def launch_graph(self, graph: int, stream: int) -> None:
        """Queue the work of a CUDA graph."""
        ...

    def close_graph(self, graph: int) -> None:
        """Free a CUDA graph, once it has run."""
        ...

    def load_kernel(self, image: bytes, name: str) -> int:
        """Load a compiled kernel onto the device."""
        ...

    def launch(
        self,
        kernel: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        addresses: tuple[int, ...],
        numbers: tuple[int | float, ...],
        stream: int,
    ) -> None:
        """Queue a kernel whose arguments are pointers, followed by ints and floats."""
        ...


class CudaDriver:
    """The driver of this machine, through NVIDIA's `cuda-bindings`."""

    def __init__(self, index: int = 0) -> None:
        """Open a GPU.

        Args:
            index: The GPU's index in the driver's order (CUDA_VISIBLE_DEVICES).

        Raises:
            BackendError: If the driver, the GPU or the package is missing.
        """
        try:
            from cuda.bindings import driver
        except ImportError as error:
            raise BackendError(
                f"can't load the CUDA bindings ({error}): install the extra `gpu` (README, Install)"
            ) from error
        self._cuda: Any = driver
        try:
            self._check("cuInit", driver.cuInit(0))
        except RuntimeError as error:  # the bindings load the driver with the first call
            raise BackendError(
                "can't load NVIDIA's driver: install it, or start the container with --gpus all"
            ) from error
        self._device = self._check("cuDeviceGet", driver.cuDeviceGet(index))
        # Threads that wait for the GPU sleep. By default the driver decides whether they keep a core busy instead,
        # which decoders and other streams need.
        flags = driver.CUctx_flags.CU_CTX_SCHED_BLOCKING_SYNC.value
        self._check("cuDevicePrimaryCtxSetFlags", driver.cuDevicePrimaryCtxSetFlags(self._device, flags))
        retained = driver.cuDevicePrimaryCtxRetain(self._device)  # until the process ends
        self._context = self._check("cuDevicePrimaryCtxRetain", retained)
        self._modules: list[Any] = []

    @property
    def context(self) -> int:
        """See the property of `Driver`."""
        return int(self._context)

    def activate(self) -> None:
        """See the method of `Driver`."""
        self._check("cuCtxSetCurrent", self._cuda.cuCtxSetCurrent(self._context))

    def allocate(self, size: int) -> int:
        """See the method of `Driver`."""
        return int(self._call("cuMemAlloc", size))

    def free(self, address: int) -> None:
        """See the method of `Driver`."""
        self._call("cuMemFree", address)

    def pin(self, size: int) -> NDArray[np.uint8]:
        """See the method of `Driver`."""
        address = int(self._call("cuMemHostAlloc", size, 0))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def unpin(self, address: int) -> None:
        """See the method of `Driver`."""
        self._call("cuMemFreeHost", address)

    def open_stream(self) -> int:
        """See the method of `Driver`."""
        return int(self._call("cuStreamCreate", self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING.value))

    def close_stream(self, stream: int) -> None:
        """See the method of `Driver`."""
        self._call("cuStreamDestroy", stream)

    def upload(self, address: int, source: NDArray[Any], stream: int) -> None:
        """See the method of `Driver`."""
        self._call("cuMemcpyHtoDAsync", address, source.ctypes.data, source.nbytes, stream)

    def download(self, target: NDArray[Any], address: int, stream: int) -> None:
        """See the method of `Driver`."""
        self._call("cuMemcpyDtoHAsync", target.ctypes.data, address, target.nbytes, stream)

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        """See the method of `Driver`."""
        self._call("cuMemcpyDtoDAsync", target, source, size, stream)

    def synchronize(self, stream: int) -> None:
        """See the method of `Driver`."""
        self._call("cuStreamSynchronize", stream)

    def open_event(self) -> int:
        """See the method of `Driver`."""
        return int(self._call("cuEventCreate", self._cuda.CUevent_flags.CU_EVENT_BLOCKING_SYNC.value))

    def close_event(self, event: int) -> None:
        """See the method of `Driver`."""
        self._call("cuEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """See the method of `Driver`."""
        self._call("cuEventRecord", event, stream)

    def wait(self, event: int) -> None:
        """See the method of `Driver`."""
        self._call("cuEventSynchronize", event)

    def follow(self, event: int, stream: int) -> None:
        """See the method of `Driver`."""
        self._call("cuStreamWaitEvent", stream, event, 0)

    def elapsed(self, start: int, end: int) -> float:
        """See the method of `Driver`."""
        return float(self._call("cuEventElapsedTime", start, end)) / 1000

    def begin_capture(self, stream: int) -> None:
        """See the method of `Driver`."""
        # Calls of other threads that a capture doesn't allow, such as those that reserve memory, don't disturb it.
        mode = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        """See the method of `Driver`."""
        graph = self._call("cuStreamEndCapture", stream)
        instantiate = "cuGraphInstantiateWithFlags"  # its name in CUDA 11
        try:
            return int(self._call(instantiate if hasattr(self._cuda, instantiate) else "cuGraphInstantiate", graph, 0))
        finally:
            self._call("cuGraphDestroy", graph)

    def launch_graph(self, graph: int, stream: int) -> None:
        """See the method of `Driver`."""
        self._call("cuGraphLaunch", graph, stream)

    def close_graph(self, graph: int) -> None:
        """See the method of `Driver`."""
        self._call("cuGraphExecDestroy", graph)

    def load_kernel(self, image: bytes, name: str) -> int:
        """See the method of `Driver`."""
        module = self._call("cuModuleLoadData", image)
        self._modules.append(module)  # a kernel is valid as long as its module
        return int(self._call("cuModuleGetFunction", module, name.encode()))

    def launch(
        self,
        kernel: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        addresses: tuple[int, ...],
        numbers: tuple[int | float, ...],
        stream: int,
    ) -> None:
        """See the method of `Driver`."""
        kinds = (ctypes.c_float if isinstance(number, float) else ctypes.c_int for number in numbers)
        types = (*(ctypes.c_void_p for _ in addresses), *kinds)
        self._call("cuLaunchKernel", kernel, *grid, *block, 0, stream, ((*addresses, *numbers), types), 0)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call the driver in our context and return its result, or None if it has none.

        Raises:
            BackendError: If the driver reports an error.
        """
        # Pushed for every call, since any thread may call.
        self._check("cuCtxPushCurrent", self._cuda.cuCtxPushCurrent(self._context))
        try:
            return self._check(name, getattr(self._cuda, name)(*arguments))
        finally:
            self._check("cuCtxPopCurrent", self._cuda.cuCtxPopCurrent())

    def _check(self, name: str, returned: Any) -> Any:
        status, *results = returned
        if status == self._cuda.CUresult.CUDA_SUCCESS:
            return results[0] if results else None
        message = f"CUDA: {name} failed with {status.name}"
        if status == self._cuda.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise OutOfDeviceMemoryError(message)
        raise BackendError(message)


@cache
def compile_kernels(source: str, options: tuple[str, ...]) -> bytes:
    """Compile CUDA source with NVRTC, which needs no GPU.

    Args:
        source: The source, which must not include other files.
        options: The options of the compiler.

    Returns:
        The compiled image, for `Driver.load_kernel`.

    Raises:
        BackendError: If NVRTC isn't installed, doesn't support the GPU's architecture, or refuses the source.
    """
    try:
        from cuda.bindings import nvrtc as library
    except ImportError as error:
        raise BackendError(
            f"can't load the CUDA bindings ({error}): install the extra `gpu` (README, Install)"
        ) from error
    nvrtc: Any = library
    success = nvrtc.nvrtcResult.NVRTC_SUCCESS

    def call(name: str, *arguments: Any) -> Any:
        status, *results = getattr(nvrtc, name)(*arguments)
        if status != success:
            raise BackendError(f"NVRTC: {name} failed with {status.name}")
        return results[0] if results else None

    try:
        program = call("nvrtcCreateProgram", source.encode(), b"keywarp.cu", 0, [], [])
    except RuntimeError as error:  # the bindings load the library with the first call
        raise BackendError(f"NVRTC isn't installed ({error}): install the extra `gpu` (README, Install)") from error
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
        if status != success:
            messages = b" " * call("nvrtcGetProgramLogSize", program)
            call("nvrtcGetProgramLog", program, messages)
            reason = messages.decode(errors="replace").strip(" \n\0")
            raise BackendError(f"NVRTC can't compile the kernels with {' '.join(options)}: {status.name} {reason}")
        image: bytes = b" " * call("nvrtcGetCUBINSize", program)
        call("nvrtcGetCUBIN", program, image)
        return image
    finally:
        call("nvrtcDestroyProgram", program)
