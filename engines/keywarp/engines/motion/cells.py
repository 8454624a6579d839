"""From pixels of the images to cells of the feature map."""

import cv2
import numpy as np
from numpy.typing import NDArray


def to_cells(flow: NDArray[np.float32], pixels_per_cell: int) -> NDArray[np.float32]:
    """Average a flow over each cell of the map that it is to warp.

    Args:
        flow: (H, W, 2), (dx, dy) in pixels.
        pixels_per_cell: p, the map's stride in these pixels. Cells that stick out repeat the nearest pixels.

    Returns:
        (1, 2, ceil(H / p), ceil(W / p)): (dx, dy) in cells, as the warp takes it.
    """
    height, width = flow.shape[:2]
    rows, columns = -(-height // pixels_per_cell), -(-width // pixels_per_cell)
    below, right = rows * pixels_per_cell - height, columns * pixels_per_cell - width
    padded = cv2.copyMakeBorder(flow, 0, below, 0, right, cv2.BORDER_REPLICATE)
    cells = padded.reshape(rows, pixels_per_cell, columns, pixels_per_cell, 2).mean(axis=(1, 3)) / pixels_per_cell
    return np.ascontiguousarray(cells.transpose(2, 0, 1)[np.newaxis], dtype=np.float32)
