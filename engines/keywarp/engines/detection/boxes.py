"""Decode the boxes that a box branch predicts.

"Rich feature hierarchies for accurate object detection and semantic segmentation" (Girshick et al., 2014), appendix C.
Coordinates are continuous, and a box covers x1 <= x < x2.
"""

import math

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.jit import jit_or

MAX_LOG_RATIO = math.log(1000 / 16)  # limit of dw and dh, an anchor of 16 pixels grown to 1000; keeps exp finite


def _decode_arrays(
    deltas: NDArray[np.float32],
    references: NDArray[np.float32],
    std: tuple[float, float, float, float],
    height: int,
    width: int,
) -> NDArray[np.float32]:
    """Return what `decode` returns, with array operations."""
    shift = deltas.astype(np.float64) * np.asarray(std, np.float64)
    corners = references.astype(np.float64)
    size = corners[:, 2:] - corners[:, :2]
    with np.errstate(invalid="ignore"):  # infinite predictions
        centre = corners[:, :2] + size / 2 + shift[:, :2] * size
        half = np.exp(np.minimum(shift[:, 2:], MAX_LOG_RATIO)) * size / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        clipped = np.asarray(np.clip(boxes, 0.0, [width, height, width, height]), np.float32)
    clipped[np.isnan(shift).any(axis=1)] = 0
    return clipped


@jit_or(_decode_arrays)
def decode(
    deltas: NDArray[np.float32],
    references: NDArray[np.float32],
    std: tuple[float, float, float, float],
    height: int,
    width: int,
) -> NDArray[np.float32]:
    """Decode boxes and clip them to the image.

    The computation is in double precision, so that the float32 result doesn't depend on the library's exponential.

    Args:
        deltas: The predictions, (n, 4): dx, dy between the centres in units of the reference's size, and dw, dh, the
            logarithms of the sizes' ratios.
        references: The reference boxes, (n, 4), x1, y1, x2, y2 in pixels.
        std: The standard deviations by which dx, dy, dw, dh were divided.
        height: The image's height in pixels.
        width: The image's width in pixels.

    Returns:
        The boxes, (n, 4), x1, y1, x2, y2 in pixels. A box is empty (x1 = x2 or y1 = y2) if it is outside of the image
        or a delta is NaN.
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


def nonempty(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which of the boxes (n, 4) aren't empty, (n,). A box with a NaN coordinate counts as empty."""
    return (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
