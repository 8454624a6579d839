"""From a frame of any size to the size that a bundle's networks take.

Only the resize happens here, on bytes. Mean, deviation and channel order are part of the fused graphs
(`keywarp.engines.fusion`), so that a frame enters the device as the uint8 it came as.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.engines.errors import InvalidFrameError
from keywarp.engines.manifest import ImagePreparation


def check_frame(frame: NDArray[np.uint8]) -> None:
    """Refuse what isn't a frame.

    Raises:
        InvalidFrameError: Not a uint8 array of shape (H, W, 3) with H, W >= 1.
    """
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        got = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise InvalidFrameError(f"a frame is a uint8 array of shape (height, width, 3) in RGB, got {got}")
    if 0 in frame.shape:
        raise InvalidFrameError(f"a frame has at least one pixel, got shape {frame.shape}")


def input_size(height: int, width: int, image: ImagePreparation) -> tuple[int, int]:
    """The network's input (height, width) in pixels for a frame of the given size (section 5.1).

    The aspect ratio is kept up to the rounding to `image.multiple`.
    """
    scale = min(image.short_side / min(height, width), image.long_side / max(height, width))

    def side(pixels: int) -> int:
        return max(image.multiple, round(pixels * scale / image.multiple) * image.multiple)

    return side(height), side(width)


def resize(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize bilinearly; the frame itself, if it has that size and is C-contiguous."""
    if frame.shape[:2] == (height, width):
        return np.ascontiguousarray(frame)
    return np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
