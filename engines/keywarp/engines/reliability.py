"""Rate how far a propagated result can be trusted, from how well the motion explains the frame in each cell."""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.engines.result import Detections, LabelMap, Output

BACKGROUND = 0


def rate(
    output: Output, cells: NDArray[np.float32], height: int, width: int, background: bool = True
) -> tuple[Output, float]:
    """Rate a propagated result and its boxes.

    What matters is where objects are, and where the motion fails: something new may be there that the key frame doesn't
    show.

    Args:
        output: The result.
        cells: The reliability of each cell of a feature map, (h, w), 0..1.
        height: The frame's height in pixels.
        width: The frame's width in pixels.
        background: Whether class 0 of a segmentation is the background. Otherwise, and in a dense map, all cells
            matter.

    Returns:
        The result, with each box's mean reliability if it has boxes; and the mean over all cells that matter, 1 if no
        cell does.
    """
    matters = cells < 1
    if isinstance(output, Detections):
        unit = np.array([cells.shape[1] / width, cells.shape[0] / height], np.float32)
        corners = output.xyxy.reshape(-1, 2, 2) * unit  # in cells
        first = np.clip(np.floor(corners[:, 0]).astype(int), 0, np.array(cells.shape[::-1]) - 1)
        last = np.maximum(np.ceil(corners[:, 1]).astype(int), first + 1)
        areas = [np.s_[top:bottom, left:right] for (left, top), (right, bottom) in zip(first, last, strict=True)]
        for area in areas:
            matters[area] = True
        each = np.array([cells[area].mean() for area in areas], np.float32)
        output = replace(output, reliability=each)
    elif not background or not isinstance(output, LabelMap):
        matters[:] = True
    else:
        objects = cv2.resize(output.labels, cells.shape[::-1], interpolation=cv2.INTER_NEAREST)
        matters |= objects != BACKGROUND
    return output, float(cells[matters].mean()) if matters.any() else 1.0
