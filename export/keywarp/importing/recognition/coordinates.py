"""Tell by their values how boxes are written."""

import numpy as np
from numpy.typing import NDArray

from keywarp.importing.errors import ImportingError
from keywarp.importing.recognition.evidence import Evidence, GridRows
from keywarp.importing.result_format import BoxForm, Units

ORDERED = 0.98  # share of rows with x1 <= x2 and y1 <= y2, from which on they are taken for corners
ALIKE = 0.7  # correlation of columns with the cells' centres, from which on they are taken for coordinates
ANCHORS = 9  # per cell, of RetinaNet
LARGEST_NORMALISED = 2.0  # boxes may extend beyond the image


def tell_coordinates(boxes: NDArray[np.float32], cells: GridRows | None, evidence: Evidence) -> tuple[BoxForm, Units]:
    """Return the form and units of boxes.

    Args:
        boxes: The boxes, (n, 4).
        cells: The cells that they belong to, or None.
        evidence: The outputs, for the image's size.

    Raises:
        ImportingError: If they can't be boxes, and the hints don't say what they are.
    """
    if cells is not None:
        centres, _, _ = cells.grid.rows(evidence.model.height, evidence.model.width)
        x = centres[:, 0].repeat(cells.per_cell)
        left, right = (_correlation(boxes[:, n], x) for n in (0, 2))
        if max(left, right) < ALIKE and cells.per_cell == 1:
            return ("distances" if are_positive(boxes) else "offsets"), "cells"
        if max(left, right) < ALIKE and cells.per_cell == ANCHORS:
            return "deltas", "cells"
        corners = right > ALIKE and are_ordered(boxes)
        return ("xyxy" if corners else "cxcywh"), tell_units(boxes)
    if are_ordered(boxes):
        return "xyxy", tell_units(boxes)
    if float((boxes[:, 2:] < 0).mean()) > 1 - ORDERED and evidence.hints.boxes is None:
        raise ImportingError(
            "the boxes are neither corners nor centres with positive sizes. Perhaps they are relative to anchors, "
            "which the file doesn't have: export the network with its boxes decoded, or say what they are"
        )
    return "cxcywh", tell_units(boxes)


def tell_units(boxes: NDArray[np.float32]) -> Units:
    """Return the units of coordinates."""
    return "normalised" if boxes.size and np.nanmax(np.abs(boxes)) <= LARGEST_NORMALISED else "pixels"


def are_ordered(boxes: NDArray[np.float32]) -> bool:
    """Return whether nearly all boxes (n, 4) are a corner and a later one."""
    return not len(boxes) or float((boxes[:, 2:] >= boxes[:, :2]).all(axis=1).mean()) >= ORDERED


def are_positive(boxes: NDArray[np.float32]) -> bool:
    """Return whether nearly all values are distances, which aren't negative."""
    return float((boxes >= 0).mean()) > ORDERED


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / scale if scale > 0 else 0.0
