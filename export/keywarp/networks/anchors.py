"""Anchors: the reference boxes that a region proposal network scores and refines, A of them in every cell.

They are those of "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks" (Ren et al., 2015),
reference [35] of "Deep Feature Flow". Coordinates are continuous: a box covers x1 <= x < x2. The boxes of the original
code include their last pixel, so that x2 and y2 are smaller by 1 there, and the code adds 1 to every width. All values
derived from the boxes agree.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def base_anchors(base: int, ratios: Sequence[float], scales: Sequence[float]) -> Tensor:
    """Compute the anchors of the map's first cell.

    Args:
        base: The side of a square in pixels. The square is stretched to each ratio, rounded to whole pixels, and then
            scaled.
        ratios: The ratios height / width.
        scales: The factors for both sides.

    Returns:
        float32 (A, 4): x1, y1, x2, y2 in pixels, A = ratios x scales. All scales of the first ratio come first.
    """
    anchors = []
    for ratio in ratios:
        width = round(math.sqrt(base**2 / ratio))
        height = round(width * ratio)
        for scale in scales:
            half_width, half_height, centre = width * scale / 2, height * scale / 2, base / 2
            anchors.append([centre - half_width, centre - half_height, centre + half_width, centre + half_height])
    return torch.tensor(anchors)


def grid_anchors(base: Tensor, rows: int, columns: int, stride: int) -> Tensor:
    """Compute the anchors of all cells of a map.

    Args:
        base: The anchors of the first cell, (A, 4).
        rows: The map's number of rows.
        columns: The map's number of columns.
        stride: Image pixels per cell.

    Returns:
        (rows * columns * A, 4), in the order row, column, anchor.
    """
    y, x = torch.meshgrid(torch.arange(rows) * stride, torch.arange(columns) * stride, indexing="ij")
    shifts = torch.stack((x, y, x, y), dim=-1).to(base)  # (rows, columns, 4)
    return (shifts.unsqueeze(2) + base).flatten(0, 2)
