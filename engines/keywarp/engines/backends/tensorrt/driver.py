"""The CUDA driver: the few calls that the TensorRT backend makes by itself. TensorRT makes the others."""

import ctypes
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.errors import BackendError


class OutOfDeviceMemoryError(BackendError):
    """The device has no memory left for a buffer."""


class Driver(Protocol):
    """One GPU. Addresses, streams, events and kernels are the driver's own numbers; sizes are bytes.

    Any thread may call it: all use the GPU's one primary context, as TensorRT does. `activate` alone changes which GPU
    is the thread's: finalizers call `free` and the like on threads that are working for another one.
    """

    def activate(self) -> None:
        """Make the GPU the calling thread's, for what TensorRT does on it."""
        ...

    def allocate(self, size: int) -> int:
        """Reserve memory on the device.

        Raises:
            OutOfDeviceMemoryError: There isn't as much.
        """
        ...

    def free(self, address: int) -> None:
        """Give device memory back; what the device still does with it is finished first."""
        ...

    def pin(self, size: int) -> NDArray[np.uint8]:
        """Reserve page-locked memory on the host, which the device reads and writes while programs go on."""
        ...

    def unpin(self, address: int) -> None:
        """Give page-locked memory back."""
        ...

    def open_stream(self) -> int:
        """Make a queue of work, which runs in order."""
        ...

    def close_stream(self, stream: int) -> None:
        """Close a queue; what is in it still runs."""
        ...

    def upload(self, address: int, source: NDArray[Any], stream: int) -> None:
        """Queue a copy from page-locked memory to the device."""
        ...

    def download(self, target: NDArray[Any], address: int, stream: int) -> None:
        """Queue a copy from the device to page-locked memory, to be read after `synchronize`."""
        ...

    def synchronize(self, stream: int) -> None:
        """Wait until all work of a queue is done."""
        ...

    def open_event(self) -> int:
        """Make a point in time."""
        ...

    def close_event(self, event: int) -> None:
        """Forget a point in time."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Let `event` be when the device has done what is queued now."""
        ...

    def elapsed(self, start: int, end: int) -> float:
        """Seconds between two recorded events that are over."""
        ...

    def load_kernel(self, image: bytes, name: str) -> int:
        """Bring a compiled kernel onto the device."""
        ...

    def launch(
        self,
        kernel: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        addresses: tuple[int, ...],
        numbers: tuple[int, ...],
        stream: int,
    ) -> None:
        """Queue a kernel whose arguments are pointers, then ints."""
        ...


class CudaDriver:
    """The driver of this machine, through NVIDIA's `cuda-bindings`."""

    def __init__(self, index: int = 0) -> None:
        """Open a GPU.

        Args:
            index: As the driver counts them (CUDA_VISIBLE_DEVICES).

        Raises:
            BackendError: There is no driver, or no such GPU, or the package isn't there.
        """
        try:
            from cuda.bindings import driver
        except ImportError as error:
            raise BackendError(
                f"the CUDA bindings don't load ({error}): install the extra `gpu` (README, Install)"
            ) from error
        self._cuda: Any = driver
        try:
            self._check("cuInit", driver.cuInit(0))
        except RuntimeError as error:  # the bindings load the driver at the first call
            raise BackendError("NVIDIA's driver isn't installed here, or this container doesn't have it") from error
        self._device = self._check("cuDeviceGet", driver.cuDeviceGet(index))
        retained = driver.cuDevicePrimaryCtxRetain(self._device)  # for as long as the process lives
        self._context = self._check("cuDevicePrimaryCtxRetain", retained)
        self._modules: list[Any] = []

    def activate(self) -> None:
        """See `Driver`."""
        self._check("cuCtxSetCurrent", self._cuda.cuCtxSetCurrent(self._context))

    def allocate(self, size: int) -> int:
        """See `Driver`."""
        return int(self._call("cuMemAlloc", size))

    def free(self, address: int) -> None:
        """See `Driver`."""
        self._call("cuMemFree", address)

    def pin(self, size: int) -> NDArray[np.uint8]:
        """See `Driver`."""
        address = int(self._call("cuMemHostAlloc", size, 0))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def unpin(self, address: int) -> None:
        """See `Driver`."""
        self._call("cuMemFreeHost", address)

    def open_stream(self) -> int:
        """See `Driver`."""
        return int(self._call("cuStreamCreate", self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING.value))

    def close_stream(self, stream: int) -> None:
        """See `Driver`."""
        self._call("cuStreamDestroy", stream)

    def upload(self, address: int, source: NDArray[Any], stream: int) -> None:
        """See `Driver`."""
        self._call("cuMemcpyHtoDAsync", address, source.ctypes.data, source.nbytes, stream)

    def download(self, target: NDArray[Any], address: int, stream: int) -> None:
        """See `Driver`."""
        self._call("cuMemcpyDtoHAsync", target.ctypes.data, address, target.nbytes, stream)

    def synchronize(self, stream: int) -> None:
        """See `Driver`."""
        self._call("cuStreamSynchronize", stream)

    def open_event(self) -> int:
        """See `Driver`."""
        return int(self._call("cuEventCreate", self._cuda.CUevent_flags.CU_EVENT_DEFAULT.value))

    def close_event(self, event: int) -> None:
        """See `Driver`."""
        self._call("cuEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """See `Driver`."""
        self._call("cuEventRecord", event, stream)

    def elapsed(self, start: int, end: int) -> float:
        """See `Driver`."""
        return float(self._call("cuEventElapsedTime", start, end)) / 1000

    def load_kernel(self, image: bytes, name: str) -> int:
        """See `Driver`."""
        module = self._call("cuModuleLoadData", image)
        self._modules.append(module)  # the kernel lives as long as it
        return int(self._call("cuModuleGetFunction", module, name.encode()))

    def launch(
        self,
        kernel: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        addresses: tuple[int, ...],
        numbers: tuple[int, ...],
        stream: int,
    ) -> None:
        """See `Driver`."""
        types = (*(ctypes.c_void_p for _ in addresses), *(ctypes.c_int for _ in numbers))
        self._call("cuLaunchKernel", kernel, *grid, *block, 0, stream, ((*addresses, *numbers), types), 0)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call the driver on our context; its one result, or None.

        Raises:
            BackendError: The driver reports an error.
        """
        self._check("cuCtxPushCurrent", self._cuda.cuCtxPushCurrent(self._context))  # threads come and go
        try:
            return self._check(name, getattr(self._cuda, name)(*arguments))
        finally:
            self._check("cuCtxPopCurrent", self._cuda.cuCtxPopCurrent())

    def _check(self, name: str, answer: Any) -> Any:
        status, *results = answer
        if status == self._cuda.CUresult.CUDA_SUCCESS:
            return results[0] if results else None
        told = f"CUDA: {name} failed with {status.name}"
        if status == self._cuda.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise OutOfDeviceMemoryError(told)
        raise BackendError(told)


@cache
def compile_kernels(source: str, options: tuple[str, ...]) -> bytes:
    """Compile CUDA source with NVRTC, which needs no GPU.

    Args:
        source: One text that includes nothing.
        options: The compiler's.

    Returns:
        What `Driver.load_kernel` takes.

    Raises:
        BackendError: NVRTC isn't installed, doesn't know the GPU's architecture, or refuses the source.
    """
    try:
        from cuda.bindings import nvrtc as library
    except ImportError as error:
        raise BackendError(
            f"the CUDA bindings don't load ({error}): install the extra `gpu` (README, Install)"
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
    except RuntimeError as error:  # the bindings load the library at the first call
        raise BackendError(f"NVRTC isn't installed ({error}): install the extra `gpu` (README, Install)") from error
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
        if status != success:
            messages = b" " * call("nvrtcGetProgramLogSize", program)
            call("nvrtcGetProgramLog", program, messages)
            told = messages.decode(errors="replace").strip(" \n\0")
            raise BackendError(f"NVRTC can't compile the kernels with {' '.join(options)}: {status.name} {told}")
        image = b" " * call("nvrtcGetCUBINSize", program)
        call("nvrtcGetCUBIN", program, image)
        return image
    finally:
        call("nvrtcDestroyProgram", program)
