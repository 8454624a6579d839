"""Non-maximum suppression, which keeps only the best of several overlapping boxes."""

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.jit import jit_or

_CHUNK = 64  # boxes compared at once, enough for vector instructions and few enough to stop early


def suppress(boxes: NDArray[np.float32], groups: NDArray[np.intp], iou: float, limit: int) -> NDArray[np.intp]:
    """Keep each box that overlaps no better kept box of its group by more than `iou`.

    Args:
        boxes: The boxes, (n, 4), x1, y1, x2, y2, the best first.
        groups: The boxes' groups (classes), (n,). Boxes of different groups don't compete.
        iou: The largest allowed intersection over union, 0..1.
        limit: The most boxes to keep.

    Returns:
        The indices of the kept boxes, ascending.
    """
    # The highest float32 that isn't above `iou`: a float32 is above it if and only if it is above `iou`.
    highest = np.float32(iou)
    if float(highest) > iou:
        highest = np.nextafter(highest, np.float32(-1))
    return _suppress(boxes, groups, highest, limit)


def _suppress_arrays(
    boxes: NDArray[np.float32], groups: NDArray[np.intp], iou: np.float32, limit: int
) -> NDArray[np.intp]:
    """Return what `_suppress` returns, with array operations: each kept box removes those after it at once."""
    left, top, right, bottom = boxes.T
    area = (right - left) * (bottom - top)
    stays = np.ones(len(boxes), np.bool_)
    kept: list[int] = []
    for n in range(len(boxes)):
        if len(kept) == limit:
            break
        if not stays[n]:
            continue
        kept.append(n)
        w = np.maximum(np.float32(0), np.minimum(right, right[n]) - np.maximum(left, left[n]))
        h = np.maximum(np.float32(0), np.minimum(bottom, bottom[n]) - np.maximum(top, top[n]))
        with np.errstate(invalid="ignore", divide="ignore"):
            overlap = w * h / (area[n] + area - w * h)  # 0 / 0 isn't above anything
        stays &= ~((overlap > iou) & (groups == groups[n]))
    return np.array(kept, np.intp)


@jit_or(_suppress_arrays)
def _suppress(boxes: NDArray[np.float32], groups: NDArray[np.intp], iou: np.float32, limit: int) -> NDArray[np.intp]:
    limit = min(limit, len(boxes))
    kept = np.empty(limit, np.intp)
    x1, y1 = np.empty(limit, np.float32), np.empty(limit, np.float32)
    x2, y2 = np.empty(limit, np.float32), np.empty(limit, np.float32)
    area = np.empty(limit, np.float32)
    group = np.empty(limit, np.intp)
    count = 0
    for n in range(len(boxes)):
        if count == limit:
            break
        left, top, right, bottom = boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3]
        size, own = (right - left) * (bottom - top), groups[n]
        stays = True
        for start in range(0, count, _CHUNK):
            overlapping = 0
            for j in range(start, min(start + _CHUNK, count)):
                w = max(np.float32(0), min(right, x2[j]) - max(left, x1[j]))
                h = max(np.float32(0), min(bottom, y2[j]) - max(top, y1[j]))
                intersection = w * h
                union = area[j] + size - intersection
                overlapping += (intersection / union > iou) & (group[j] == own)  # 0 / 0 isn't above anything
            if overlapping:
                stays = False
                break
        if stays:
            kept[count] = n
            x1[count], y1[count], x2[count], y2[count], area[count] = left, top, right, bottom, size
            group[count] = own
            count += 1
    return kept[:count]
