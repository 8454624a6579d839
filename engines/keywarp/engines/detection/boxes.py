"""Boxes from what a box branch predicts.

"Rich feature hierarchies for accurate object detection and semantic segmentation" (Girshick et al., 2014), appendix C.
Coordinates are continuous: a box covers x1 <= x < x2.
"""

import math

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.jit import jit

MAX_LOG_RATIO = math.log(1000 / 16)  # of dw and dh: a 16 pixel anchor as large as an image; exp stays finite


@jit
def decode(
    deltas: NDArray[np.float32],
    references: NDArray[np.float32],
    std: tuple[float, float, float, float],
    height: int,
    width: int,
) -> NDArray[np.float32]:
    """Decode boxes and clip them to the image.

    Computed in double precision, so that the result as a float is the same with every library's exponential.

    Args:
        deltas: (n, 4): dx, dy between the centres in sizes of the reference; dw, dh: logarithms of the sizes' ratios.
        references: (n, 4): x1, y1, x2, y2.
        std: What dx, dy, dw, dh were divided by.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Returns:
        (n, 4): x1, y1, x2, y2; empty (x1 = x2 or y1 = y2) outside the image or where a delta isn't a number.
    """
    boxes = np.zeros((len(deltas), 4), np.float32)
    for n in range(len(deltas)):
        dx, dy, dw, dh = deltas[n, 0] * std[0], deltas[n, 1] * std[1], deltas[n, 2] * std[2], deltas[n, 3] * std[3]
        if np.isnan(dx) or np.isnan(dy) or np.isnan(dw) or np.isnan(dh):
            continue
        x, y = np.float64(references[n, 0]), np.float64(references[n, 1])
        w, h = references[n, 2] - x, references[n, 3] - y
        centre_x, centre_y = x + w / 2 + dx * w, y + h / 2 + dy * h
        half_w, half_h = math.exp(min(dw, MAX_LOG_RATIO)) * w / 2, math.exp(min(dh, MAX_LOG_RATIO)) * h / 2
        boxes[n, 0] = min(max(centre_x - half_w, 0.0), width)
        boxes[n, 1] = min(max(centre_y - half_h, 0.0), height)
        boxes[n, 2] = min(max(centre_x + half_w, 0.0), width)
        boxes[n, 3] = min(max(centre_y + half_h, 0.0), height)
    return boxes


def visible(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(n, 4) -> (n,): which boxes cover something. Those with a coordinate that isn't a number don't."""
    return (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
