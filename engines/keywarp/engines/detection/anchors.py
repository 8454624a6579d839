"""Anchors, the boxes around every cell of the map that the proposal branch scores and refines."""

import math

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.manifest import RegionDetection


def grid_anchors(settings: RegionDetection, rows: int, columns: int) -> NDArray[np.float32]:
    """Return the anchors of a whole map ("Faster R-CNN", reference [35] of the paper).

    Args:
        settings: The manifest's settings of an R-FCN head.
        rows: The map's height in cells.
        columns: The map's width in cells.

    Returns:
        The anchors in the order row, column, ratio, scale, (rows * columns * A, 4), x1, y1, x2, y2 in pixels. A box
        covers x1 <= x < x2.
    """
    centre = settings.anchor_base / 2
    sizes = [
        (width * scale, round(width * ratio) * scale)
        for ratio in settings.anchor_ratios
        for width in [round(math.sqrt(settings.anchor_base**2 / ratio))]
        for scale in settings.anchor_scales
    ]
    base = [(centre - w / 2, centre - h / 2, centre + w / 2, centre + h / 2) for w, h in sizes]
    y, x = np.meshgrid(np.arange(rows) * settings.stride, np.arange(columns) * settings.stride, indexing="ij")
    shifts = np.stack((x, y, x, y), axis=-1).astype(np.float32)  # (rows, columns, 4)
    return (shifts[:, :, np.newaxis] + np.array(base, np.float32)).reshape(-1, 4)
