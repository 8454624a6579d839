"""Frames in a device's memory as the networks' input: the kernels of `images.cu`.

The images are, byte by byte, those that the host makes with OpenCV (`keywarp.engines.preparation`), so that it doesn't
matter for results where a frame was prepared.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.backends.tensorrt.device_kernels import DeviceKernels, rows
from keywarp.engines.backends.tensorrt.device_memory import DeviceMemory
from keywarp.engines.backends.tensorrt.driver import Driver
from keywarp.engines.placement import Placement

KERNELS: Final = ("keywarp_resize", "keywarp_shrink")
CHANNELS: Final = 3
ONE: Final = np.float32(2048)  # what OpenCV's weights add up to


class DeviceResizer:
    """Makes the networks' input of frames of one size."""

    def __init__(
        self,
        driver: Driver,
        memory: DeviceMemory,
        capability: tuple[int, int],
        height: int,
        width: int,
        placement: Placement,
        padding: int,
    ) -> None:
        """Load the kernels, and upload what is known in advance.

        Args:
            driver: The device's driver.
            memory: The device's pool of buffers.
            capability: The device's compute capability.
            height: The frames' height in pixels.
            width: The frames' width in pixels.
            placement: Where the frames lie in the networks' input.
            padding: The padding's value in all channels.

        Raises:
            BackendError: If the device is full, or NVRTC can't compile the kernels.
        """
        self._kernels = DeviceKernels(driver, memory, capability, "images", KERNELS)
        self._placement, self._padding, self._width = placement, padding, width
        # With exactly half the size OpenCV takes the mean of four pixels.
        self._halved = (height, width) == (2 * placement.rows, 2 * placement.columns)
        sides = (height, placement.rows), (width, placement.columns)
        made = zip(sides, (_row_taps, _column_taps), strict=True)
        self._taps = [self._kernels.constant(_halves(n) if self._halved else taps(m, n)) for (m, n), taps in made]

    def resize(self, frame: int, result: int, stream: int) -> None:
        """Queue the resizing of a frame, as `resize` and `Placement.pad` do it.

        Args:
            frame: The device address of the frame, uint8 (H, W, 3), RGB, without gaps between rows.
            result: The device address of the networks' input, uint8 (height, width, 3).
            stream: The stream to queue it in.
        """
        at = self._placement
        addresses = (frame, *(taps.address for taps in self._taps), result)
        where = (at.top, at.left, at.rows, at.columns)
        numbers = (self._width, at.height, at.width, *where, self._padding, int(self._halved))
        self._kernels.launch("keywarp_resize", *rows(at.width, at.height), addresses, numbers, stream)

    def seen_size(self, downscale: int) -> tuple[int, int]:
        """Return the size of what the flow network sees, see `shrink_input`."""
        return -(-self._placement.height // downscale), -(-self._placement.width // downscale)

    def small_size(self, downscale: int, stride: int) -> tuple[int, int]:
        """Return the size of what motion is estimated on, see `shrink_picture`."""
        if not self._placement.is_padded:
            return self.seen_size(downscale)
        ends = zip(self._placement.cells(stride), self._placement.size, strict=True)
        height, width = (min(cells.stop * stride, side) - cells.start * stride for cells, side in ends)
        return -(-height // downscale), -(-width // downscale)

    def shrink_input(self, image: int, result: int, downscale: int, stream: int) -> None:
        """Queue the averaging of the networks' input over blocks, as what the flow network sees.

        Args:
            image: The device address of what `resize` wrote.
            result: The device address of the result, uint8 (*seen_size, 3).
            downscale: The side of a block in pixels.
            stream: The stream to queue it in.
        """
        at = self._placement
        inside = (0, at.height, 0, at.width)
        self._shrink(image, result, self.seen_size(downscale), downscale, (0, 0), inside, stream)

    def shrink_picture(self, image: int, result: int, downscale: int, stride: int, stream: int) -> None:
        """Queue the averaging of the cells that see the picture, as `Placement.cover` leaves them.

        Args:
            image: The device address of what `resize` wrote.
            result: The device address of the result, uint8 (*small_size, 3).
            downscale: The side of a block in pixels.
            stride: The stride of the map whose cells are covered.
            stream: The stream to queue it in.
        """
        at = self._placement
        first = (0, 0)
        if at.is_padded:
            down, across = at.cells(stride)
            first = down.start * stride, across.start * stride
        inside = (at.top, at.top + at.rows, at.left, at.left + at.columns)
        self._shrink(image, result, self.small_size(downscale, stride), downscale, first, inside, stream)

    def _shrink(
        self,
        image: int,
        result: int,
        size: tuple[int, int],
        downscale: int,
        first: tuple[int, int],
        inside: tuple[int, int, int, int],
        stream: int,
    ) -> None:
        addresses, numbers = (image, result), (self._placement.width, *size, downscale, *first, *inside)
        self._kernels.launch("keywarp_shrink", *rows(size[1], size[0]), addresses, numbers, stream)


def _positions(pixels: int, result: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the pixel before each pixel of the result along one side, and the share of the next one, as in OpenCV."""
    step = 1 / (result / pixels)
    position = ((np.arange(result) + 0.5) * step - 0.5).astype(np.float32)
    before = np.floor(position)
    return before.astype(np.int32), position - before


def _weights(shares: NDArray[np.float32]) -> NDArray[np.int32]:
    return np.rint(np.stack([(1 - shares) * ONE, shares * ONE])).astype(np.int32)


def _column_taps(pixels: int, result: int) -> NDArray[np.int32]:
    """Return the taps of columns, (result, 4), see `images.cu`. At the border the weight is that of one pixel."""
    before, shares = _positions(pixels, result)
    outside = (before < 0) | (before >= pixels - 1)
    places = np.clip(np.stack([before, before + 1]), 0, pixels - 1)
    return np.ascontiguousarray(np.concatenate([places, _weights(np.where(outside, np.float32(0), shares))]).T)


def _row_taps(pixels: int, result: int) -> NDArray[np.int32]:
    """Return the taps of rows, (result, 4). At the border OpenCV weighs the same row twice."""
    before, shares = _positions(pixels, result)
    places = np.clip(np.stack([before, before + 1]), 0, pixels - 1)
    return np.ascontiguousarray(np.concatenate([places, _weights(shares)]).T)


def _halves(result: int) -> NDArray[np.int32]:
    """Return the taps of every two pixels, (result, 4), without weights."""
    places = 2 * np.arange(result, dtype=np.int32)
    return np.stack([places, places + 1, 0 * places, 0 * places], axis=1)
