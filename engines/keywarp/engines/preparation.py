"""Resize frames to the input size of a bundle's networks.

Only the resize happens here, on bytes. Mean, deviation and channel order are part of the fused graphs
(`keywarp.engines.fusion`), so that frames are sent to the device as uint8.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.engines.errors import InvalidFrameError
from keywarp.engines.manifest import ImagePreparation


def check_frame(frame: NDArray[np.uint8]) -> None:
    """Check that an array is a frame.

    Raises:
        InvalidFrameError: If it isn't a uint8 array of shape (H, W, 3) with H, W >= 1.
    """
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        got = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise InvalidFrameError(f"a frame must be a uint8 array of shape (height, width, 3) in RGB, got {got}")
    if 0 in frame.shape:
        raise InvalidFrameError(f"a frame must have at least one pixel, got shape {frame.shape}")


def input_size(height: int, width: int, image: ImagePreparation) -> tuple[int, int]:
    """Return the size of the networks' input for a frame (section 5.1).

    The aspect ratio is kept except for the rounding to `image.multiple`.

    Args:
        height: The frame's height in pixels.
        width: The frame's width in pixels.
        image: The manifest's settings.

    Returns:
        (height, width) in pixels.
    """
    scale = min(image.short_side / min(height, width), image.long_side / max(height, width))

    def side(pixels: int) -> int:
        return max(image.multiple, round(pixels * scale / image.multiple) * image.multiple)

    return side(height), side(width)


def resize(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize a frame bilinearly. A C-contiguous frame that already has the size is returned unchanged."""
    if frame.shape[:2] == (height, width):
        return np.ascontiguousarray(frame)
    return np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
