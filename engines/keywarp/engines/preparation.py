"""Fit frames into the input of a bundle's networks.

Only the resizing happens here, on bytes. Mean, deviation and channel order are part of the fused graphs
(`keywarp.engines.fusion`), so that frames are sent to the device as uint8.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.engines.errors import InvalidFrameError
from keywarp.engines.manifest import ImagePreparation
from keywarp.engines.placement import Placement


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


def place(height: int, width: int, image: ImagePreparation) -> Placement:
    """Return the size of the networks' input for a frame, and where the frame lies in it (section 5.1).

    The aspect ratio is kept, except for rounding and by the fit `stretch`.

    Args:
        height: The frame's height in pixels.
        width: The frame's width in pixels.
        image: The manifest's settings.
    """
    if image.height is not None and image.width is not None:
        return _place_exactly(height, width, image, image.height, image.width)
    assert image.short_side is not None  # ensured by the manifest's validation
    assert image.long_side is not None
    scale = min(image.short_side / min(height, width), image.long_side / max(height, width))

    def side(pixels: int) -> int:
        return max(image.multiple, round(pixels * scale / image.multiple) * image.multiple)

    rows, columns = side(height), side(width)
    return Placement(rows, columns, 0, 0, rows, columns)


def _place_exactly(height: int, width: int, image: ImagePreparation, rows: int, columns: int) -> Placement:
    """Return the placement in an input of `rows` x `columns`."""
    if image.fit == "stretch":
        return Placement(rows, columns, 0, 0, rows, columns)
    scale = min(rows / height, columns / width)
    own_rows, own_columns = max(1, round(height * scale)), max(1, round(width * scale))
    centered = image.padding == "center"
    top, left = ((rows - own_rows) // 2, (columns - own_columns) // 2) if centered else (0, 0)
    return Placement(rows, columns, top, left, own_rows, own_columns)


def input_size(height: int, width: int, image: ImagePreparation) -> tuple[int, int]:
    """Return the size of the networks' input for a frame, (height, width) in pixels. See `place`."""
    return place(height, width, image).size


def resize(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize a frame bilinearly. A C-contiguous frame that already has the size is returned unchanged."""
    if frame.shape[:2] == (height, width):
        return np.ascontiguousarray(frame)
    return np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
