"""Anchors: the boxes that the proposal branch scores and refines, some around every cell of its map."""

import math

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.manifest import RegionDetection


def grid_anchors(settings: RegionDetection, rows: int, columns: int) -> NDArray[np.float32]:
    """The anchors of a whole map ("Faster R-CNN", reference [35] of the paper).

    Args:
        settings: See there.
        rows: Of the map.
        columns: Of the map.

    Returns:
        (rows * columns * A, 4): x1, y1, x2, y2 in pixels, a box covers x1 <= x < x2; in the order row, column, ratio,
        scale.
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
