"""Convert a flow between pixels of the images and cells of a feature map."""

import cv2
import numpy as np
from numpy.typing import NDArray


def to_cells(flow: NDArray[np.float32], pixels_per_cell: int) -> NDArray[np.float32]:
    """Average a flow over each cell of the feature map that it will warp.

    Args:
        flow: The flow, (H, W, 2), (dx, dy) in pixels.
        pixels_per_cell: The map's stride p in these pixels. Cells beyond the border repeat the nearest pixels.

    Returns:
        The flow as the warp's input, (1, 2, ceil(H / p), ceil(W / p)), (dx, dy) in cells.
    """
    height, width = flow.shape[:2]
    rows, columns = -(-height // pixels_per_cell), -(-width // pixels_per_cell)
    below, right = rows * pixels_per_cell - height, columns * pixels_per_cell - width
    padded = cv2.copyMakeBorder(flow, 0, below, 0, right, cv2.BORDER_REPLICATE)
    cells = cv2.resize(padded, (columns, rows), interpolation=cv2.INTER_AREA) / np.float32(pixels_per_cell)
    return np.ascontiguousarray(cells.transpose(2, 0, 1)[np.newaxis], dtype=np.float32)


def to_pixels(flow: NDArray[np.float32], pixels_per_cell: int, height: int, width: int) -> NDArray[np.float32]:
    """Interpolate a flow of cells bilinearly between their centres.

    Args:
        flow: The flow, (1, 2, h, w), (dx, dy) in cells.
        pixels_per_cell: The map's stride in pixels of the images.
        height: The images' height in pixels.
        width: The images' width in pixels.

    Returns:
        The flow, (height, width, 2), (dx, dy) in pixels.
    """
    cells = np.ascontiguousarray(flow[0].transpose(1, 2, 0)) * np.float32(pixels_per_cell)
    size = (cells.shape[1] * pixels_per_cell, cells.shape[0] * pixels_per_cell)
    return np.ascontiguousarray(cv2.resize(cells, size, interpolation=cv2.INTER_LINEAR)[:height, :width])


def stay_inside(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Let a flow that points out of the map point to its border, because the warp reads zeros outside.

    The flow of coarser maps is the mean over cells of this one, and may still point out by less than half a cell. That
    makes no difference to results.

    Args:
        flow: The flow, (1, 2, h, w), (dx, dy) in cells.
    """
    rows, columns = flow.shape[2:]
    x, y = np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32)[:, np.newaxis]
    inside = np.stack([np.clip(flow[0, 0], -x, columns - 1 - x), np.clip(flow[0, 1], -y, rows - 1 - y)])
    return inside[np.newaxis]
