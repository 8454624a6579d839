"""Frames in a GPU's memory, which its decoder left there, and the images that are made of them on the device."""

from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from threading import Lock
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.backends.interface import DeviceTensor
from keywarp.engines.backends.tensorrt.device_images import DeviceResizer
from keywarp.engines.backends.tensorrt.device_kernels import DeviceKernels, rows
from keywarp.engines.backends.tensorrt.device_memory import Buffer, DeviceMemory, call_when_collected
from keywarp.engines.backends.tensorrt.driver import Driver
from keywarp.engines.frames import Preparation

CHANNELS: Final = 3
MAX_SIZES: Final = 32  # sizes of frames whose tables stay on the device


@dataclass(frozen=True, slots=True, eq=False)
class DeviceImages:
    """The images of a frame; see `FrameImages`."""

    input: DeviceTensor
    seen: DeviceTensor
    small: NDArray[np.uint8]


class KeptFrame:
    """A frame in the device's memory; see `DeviceFrame`. Its memory is reused once nothing refers to the frame."""

    def __init__(self, store: "DeviceFrames", buffer: Buffer, height: int, width: int) -> None:
        """Take over a buffer that holds the frame, without gaps between rows."""
        self._store, self._buffer = store, buffer
        self.shape = (height, width, CHANNELS)
        self._pixels: NDArray[np.uint8] | None = None

    def images(self, how: Preparation) -> DeviceImages:
        """See `DeviceFrame.images`."""
        return self._store.prepare(self._buffer, *self.shape[:2], how)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.uint8]:
        """See `DeviceFrame.__array__`."""
        if self._pixels is None:
            self._pixels = self._store.download(self._buffer).reshape(self.shape)
            self._pixels.flags.writeable = False  # whoever draws on it or hides regions of it takes a copy
        return np.array(self._pixels, dtype, copy=copy)


class DeviceFrames:
    """Keeps and prepares frames on one device; see `FrameStore`. It is thread-safe."""

    def __init__(self, driver: Driver, memory: DeviceMemory, capability: tuple[int, int], gpu: int) -> None:
        """Open a stream. Kernels are compiled for the first frame.

        Args:
            driver: The device's driver.
            memory: The device's pool of buffers.
            capability: The device's compute capability.
            gpu: The device's number among CUDA's.
        """
        self._driver, self._memory, self._capability, self.gpu = driver, memory, capability, gpu
        self.context, self.stream = driver.context, driver.open_stream()
        call_when_collected(self, driver.close_stream, self.stream)
        self._lock = Lock()
        self._kernels: DeviceKernels | None = None
        self._resizers: OrderedDict[tuple[int, int, Preparation], DeviceResizer] = OrderedDict()
        self._pinned: NDArray[np.uint8] | None = None  # what downloads pass through; grows to the largest

    def keep(self, address: int, pitch: int, height: int, width: int) -> KeptFrame:
        """See `FrameStore.keep`."""
        length = CHANNELS * width
        buffer = self._memory.buffer(height * length)
        with self._lock:
            if self._kernels is None:
                self._kernels = DeviceKernels(self._driver, self._memory, self._capability, "images", ("keywarp_pack",))
            self._kernels.launch(
                "keywarp_pack", *rows(length, height), (address, buffer.address), (length, pitch), self.stream
            )
            self._driver.synchronize(self.stream)
        return KeptFrame(self, buffer, height, width)

    def prepare(self, frame: Buffer, height: int, width: int, how: Preparation) -> DeviceImages:
        """Return the images of a frame; see `DeviceFrame.images`."""
        with self._lock:
            resizer, stream = self._resizer(height, width, how), self.stream
            image = self._memory.buffer(CHANNELS * prod(how.placement.size))
            resizer.resize(frame.address, image.address, stream)
            seen = self._memory.buffer(CHANNELS * prod(resizer.seen_size(how.downscale)))
            resizer.shrink_input(image.address, seen.address, how.downscale, stream)
            size, small = resizer.small_size(how.downscale, how.stride), seen
            if how.placement.is_padded:
                small = self._memory.buffer(CHANNELS * prod(size))
                resizer.shrink_picture(image.address, small.address, how.downscale, how.stride, stream)
            pixels = self._download(small)
        return DeviceImages(DeviceTensor(image), DeviceTensor(seen), pixels.reshape(*size, CHANNELS))

    def download(self, buffer: Buffer) -> NDArray[np.uint8]:
        """Return a copy of a buffer's content."""
        with self._lock:
            return self._download(buffer)

    def _download(self, buffer: Buffer) -> NDArray[np.uint8]:
        """Return a copy of a buffer's content, once the stream's work is done."""
        if self._pinned is None or self._pinned.size < buffer.size:
            self._pinned = self._driver.pin(buffer.size)
            call_when_collected(self, self._driver.unpin, self._pinned.ctypes.data)
        content = self._pinned[: buffer.size]
        self._driver.download(content, buffer.address, self.stream)
        self._driver.synchronize(self.stream)
        return content.copy()

    def _resizer(self, height: int, width: int, how: Preparation) -> DeviceResizer:
        key = height, width, how
        if key not in self._resizers:
            if len(self._resizers) == MAX_SIZES:
                self._resizers.popitem(last=False)
            size = height, width, how.placement, how.padding
            self._resizers[key] = DeviceResizer(self._driver, self._memory, self._capability, *size)
        self._resizers.move_to_end(key)
        return self._resizers[key]
