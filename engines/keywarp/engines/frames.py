"""Frames as the engine takes them, and the images that networks and motion estimation see of them.

Most frames are arrays. A decoder that runs on the GPU may leave a frame in its memory instead, for a backend that
prepares it there: then only the small image that the flow is checked on comes to the host. Whoever needs all pixels
calls `np.asarray(frame)`, which copies them to the host once.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.engines.backends.interface import Tensor
from keywarp.engines.placement import Placement
from keywarp.engines.preparation import resize


@dataclass(frozen=True, slots=True)
class Preparation:
    """How a frame is prepared."""

    placement: Placement  # where it lies in the networks' input
    padding: int  # the padding's value in all channels
    downscale: int  # pixels of the networks' input per pixel of the images for motion
    stride: int  # of the map whose cells motion is estimated for, pixels


class FrameImages(Protocol):
    """What networks and motion estimation see of a frame."""

    @property
    def input(self) -> Tensor:
        """The networks' input, uint8 (1, H, W, 3)."""
        ...

    @property
    def seen(self) -> Tensor:
        """What the flow network sees: the networks' input at its size, uint8 (1, h, w, 3)."""
        ...

    @property
    def small(self) -> NDArray[np.uint8]:
        """What motion is estimated and checked on: the cells that see the picture, uint8 (h, w, 3), see `cover`."""
        ...


@runtime_checkable
class DeviceFrame(Protocol):
    """A frame in a GPU's memory, RGB. It never changes."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3)."""
        ...

    def images(self, how: Preparation) -> FrameImages:
        """Prepare the frame on the device.

        Raises:
            BackendError: If the device failed.
        """
        ...

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.uint8]:
        """Return the pixels, uint8 (H, W, 3), which are copied to the host the first time."""
        ...


Frame = NDArray[np.uint8] | DeviceFrame


class FrameStore(Protocol):
    """Keeps frames that a decoder leaves in the memory of a backend's device."""

    @property
    def context(self) -> int:
        """The handle of the device's CUDA context, in which the decoder must run."""
        ...

    @property
    def stream(self) -> int:
        """The handle of the CUDA stream in which the decoder must write its frames."""
        ...

    @property
    def gpu(self) -> int:
        """The device's number among CUDA's."""
        ...

    def keep(self, address: int, pitch: int, height: int, width: int) -> DeviceFrame:
        """Copy a frame that was written in the stream, since the decoder will overwrite it.

        Args:
            address: The device address of its first pixel, RGB.
            pitch: The bytes from row to row.
            height: Its height in pixels.
            width: Its width in pixels.

        Raises:
            BackendError: If the device is full, or failed.
        """
        ...


class HostImages:
    """The images of a frame on the host; see `FrameImages`. Each is made when it is first needed."""

    def __init__(self, frame: NDArray[np.uint8], how: Preparation) -> None:
        """Take a frame, uint8 (H, W, 3), RGB, of any size."""
        self._frame, self._how = frame, how

    @cached_property
    def _picture(self) -> NDArray[np.uint8]:
        return resize(self._frame, self._how.placement.rows, self._how.placement.columns)

    @cached_property
    def input(self) -> NDArray[np.uint8]:
        """See `FrameImages`."""
        return self._how.placement.pad(self._picture, self._how.padding)[np.newaxis]

    @cached_property
    def seen(self) -> NDArray[np.uint8]:
        """See `FrameImages`."""
        padded = self._how.placement.is_padded
        return (shrink(self.input[0], self._how.downscale) if padded else self.small)[np.newaxis]

    @cached_property
    def small(self) -> NDArray[np.uint8]:
        """See `FrameImages`."""
        return shrink(self._how.placement.cover(self._picture, self._how.stride), self._how.downscale)


def images_of(frame: Frame, how: Preparation) -> FrameImages:
    """Return what networks and motion estimation see of a frame.

    Raises:
        BackendError: If the frame is on a device that failed.
    """
    return HostImages(frame, how) if isinstance(frame, np.ndarray) else frame.images(how)


def shrink(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Return an image averaged over blocks of `factor` pixels; blocks at the border may be smaller."""
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, 0, -height % factor, 0, -width % factor, cv2.BORDER_REPLICATE)
    size = (padded.shape[1] // factor, padded.shape[0] // factor)
    return np.asarray(cv2.resize(padded, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
