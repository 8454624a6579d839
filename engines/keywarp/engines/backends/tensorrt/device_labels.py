"""The labels of a segmentation on a device: the kernels of `labels.cu`. They are those of the host's `Labeller`."""

from collections.abc import Sequence
from typing import Final

from keywarp.engines.backends.tensorrt.device_kernels import DeviceKernels, rows
from keywarp.engines.backends.tensorrt.device_memory import DeviceMemory
from keywarp.engines.backends.tensorrt.driver import Driver

KERNELS: Final = ("keywarp_highest", "keywarp_labels")


class DeviceLabeller:
    """Labels the pixels of a batch of images, for one size of the networks' input."""

    def __init__(
        self,
        driver: Driver,
        memory: DeviceMemory,
        capability: tuple[int, int],
        shape: tuple[int, int, int, int],
        stride: int,
        height: int,
        width: int,
    ) -> None:
        """Allocate all memory that frames need, and load the kernels.

        Args:
            driver: The device's driver.
            memory: The device's pool of buffers.
            capability: The device's compute capability.
            shape: The scores' shape, (N, C, rows, columns).
            stride: The stride of the scores in pixels.
            height: The height of the networks' input in pixels.
            width: The width of the networks' input in pixels.

        Raises:
            BackendError: If the device is full, or NVRTC can't compile the kernels.
        """
        from keywarp.engines.labels import Axis  # imports numba, if that is installed

        self._kernels = DeviceKernels(driver, memory, capability, "labels", KERNELS)
        self._shape, self._size = shape, (height, width)
        batch, _, cell_rows, cell_columns = shape
        self._highest = memory.buffer(batch * cell_rows * cell_columns)
        axes = Axis(height, stride), Axis(width, stride)
        self._axes = [self._kernels.constant(values) for axis in axes for values in (axis.before, axis.shares)]

    def enqueue(self, inputs: Sequence[int], output: int, stream: int) -> None:
        """Queue all kernels; see `LastStepKernels`. The input is the scores, in float, the output the labels."""
        (scores,) = inputs
        (batch, classes, *cells), (height, width) = self._shape, self._size
        count, highest = cells[0] * cells[1], self._highest.address
        self._kernels.launch("keywarp_highest", *rows(count, 1, batch), (scores, highest), (classes, count), stream)
        self._kernels.launch(
            "keywarp_labels",
            *rows(width, height, batch),
            (scores, highest, *(buffer.address for buffer in self._axes), output),
            (classes, *cells, height, width),
            stream,
        )
