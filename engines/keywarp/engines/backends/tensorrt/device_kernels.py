"""The kernels of one source on one device, and the constants that they read."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.backends.tensorrt.device_memory import Buffer, DeviceMemory
from keywarp.engines.backends.tensorrt.driver import Driver, compile_kernels
from keywarp.engines.cuda import kernels

THREADS: Final = 128  # per block
# Without fused products, so that results and comparisons are the host's.
OPTIONS: Final = ("--fmad=false",)

Extent = tuple[int, int, int]  # x, y, z


class DeviceKernels:
    """Kernels that are compiled and loaded. They run in any stream of the device."""

    def __init__(
        self, driver: Driver, memory: DeviceMemory, capability: tuple[int, int], source: str, names: Sequence[str]
    ) -> None:
        """Compile a source, and load its kernels.

        Args:
            driver: The device's driver.
            memory: The device's pool of buffers.
            capability: The device's compute capability.
            source: The name of a source in `keywarp.engines.cuda`, without its ending.
            names: The names of the kernels.

        Raises:
            BackendError: If NVRTC isn't installed, or can't compile the source.
        """
        self._driver, self._memory = driver, memory
        image = compile_kernels(kernels.source(source), (*kernels.nvrtc_options(*capability), *OPTIONS))
        self._kernels = {name: driver.load_kernel(image, name) for name in names}

    def launch(
        self,
        name: str,
        grid: Extent,
        block: Extent,
        addresses: tuple[int, ...],
        numbers: tuple[int | float, ...],
        stream: int,
    ) -> None:
        """Queue a kernel; see `Driver.launch`."""
        self._driver.launch(self._kernels[name], grid, block, addresses, numbers, stream)

    def buffer(self, kind: Any, count: int) -> Buffer:
        """Return memory for a number of values of a numpy type."""
        return self._memory.buffer(count * np.dtype(kind).itemsize)

    def constant(self, values: NDArray[Any]) -> Buffer:
        """Return a buffer with values that stay."""
        buffer, driver = self._memory.buffer(values.nbytes), self._driver
        stream, pinned = driver.open_stream(), driver.pin(values.nbytes)
        try:
            pinned[:] = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
            driver.upload(buffer.address, pinned, stream)
            driver.synchronize(stream)
        finally:
            driver.unpin(pinned.ctypes.data)
            driver.close_stream(stream)
        return buffer


def line(count: int) -> tuple[Extent, Extent]:
    """Return grid and block of a thread for each of a number of things."""
    return (-(-count // THREADS), 1, 1), (THREADS, 1, 1)


def rows(across: int, down: int, images: int = 1) -> tuple[Extent, Extent]:
    """Return grid and block of a thread for each place of some rows, of some images."""
    threads = min(THREADS, -(-across // 32) * 32)
    return (-(-across // threads), down, images), (threads, 1, 1)
