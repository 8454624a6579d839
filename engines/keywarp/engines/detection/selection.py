"""Select the objects to report among scored boxes."""

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.detection.boxes import nonempty
from keywarp.engines.detection.ranking import best_indices
from keywarp.engines.detection.suppression import suppress
from keywarp.engines.jit import jit_or
from keywarp.engines.manifest import DenseDetection, RegionDetection
from keywarp.engines.result import Detections


def select(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    settings: DenseDetection | RegionDetection,
    candidates: int,
) -> Detections:
    """Select objects, see `select_rows`."""
    indices, classes = select_rows(boxes, scores, settings, candidates)
    return Detections(boxes[indices], scores[indices, classes], classes)


def select_rows(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    settings: DenseDetection | RegionDetection,
    candidates: int,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Select objects by the threshold, the suppression within each class, and the limit over all classes.

    Args:
        boxes: The boxes, (n, 4), x1, y1, x2, y2. Empty ones are ignored.
        scores: The probabilities, (n, classes). The first column, the background, isn't read, and NaN is ignored.
        settings: The settings `threshold`, `iou` and `limit`.
        candidates: The most pairs of box and class that enter the suppression.

    Returns:
        The objects' rows and their classes, the most certain first. Equally certain ones are in the order of their
        classes, then of the boxes.
    """
    classes, indices = _certain(np.ascontiguousarray(scores), nonempty(boxes), np.float32(settings.threshold))
    order = best_indices(scores[indices, classes], candidates)
    classes, indices = classes[order], indices[order]
    kept = suppress(boxes[indices], classes, settings.iou, settings.limit)
    return indices[kept], classes[kept]


def within(scores: NDArray[np.float32], limit: float) -> bool:
    """Return whether all scores are from 0 to a positive limit, without NaN. -0 counts as less than 0.

    Bits of positive floats order like integers, whose extremes are found several times as fast as those of floats.
    """
    lowest, highest = _extremes(np.ascontiguousarray(scores).reshape(-1).view(np.int32))
    return bool(lowest >= 0 and highest <= np.float32(limit).view(np.int32))


def _extreme_arrays(bits: NDArray[np.int32]) -> tuple[np.int32, np.int32]:
    return min(np.int32(0), bits.min(initial=0)), max(np.int32(0), bits.max(initial=0))


@jit_or(_extreme_arrays)
def _extremes(bits: NDArray[np.int32]) -> tuple[np.int32, np.int32]:
    lowest = highest = np.int32(0)
    for n in range(len(bits)):
        lowest, highest = min(lowest, bits[n]), max(highest, bits[n])
    return lowest, highest


def _certain_arrays(
    scores: NDArray[np.float32], usable: NDArray[np.bool_], threshold: np.float32
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return what `_certain` returns, with array operations."""
    rows = np.flatnonzero(usable)
    classes, found = np.nonzero((scores[rows, 1:] >= threshold).T)
    return classes + 1, rows[found]


@jit_or(_certain_arrays)
def _certain(
    scores: NDArray[np.float32], usable: NDArray[np.bool_], threshold: np.float32
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the classes and rows of the scores of usable rows that reach the threshold, ordered by class, then row."""
    bits = scores.view(np.int32)  # in the order of the scores, as far as these are positive; NaN is above all
    least = np.full(1, threshold, np.float32).view(np.int32)[0] if threshold > 0 else np.int32(-(2**31))
    rows = np.empty(len(scores), np.intp)
    kept = 0
    for row in range(len(scores)):
        best = np.int32(-(2**31))
        for column in range(1, scores.shape[1]):
            best = max(best, bits[row, column])
        if usable[row] and best >= least:
            rows[kept] = row
            kept += 1
    count = 0
    for n in range(kept):
        for column in range(1, scores.shape[1]):
            count += scores[rows[n], column] >= threshold
    classes, indices = np.empty(count, np.intp), np.empty(count, np.intp)
    count = 0
    for column in range(1, scores.shape[1]):
        for n in range(kept):
            if scores[rows[n], column] >= threshold:
                classes[count], indices[count] = column, rows[n]
                count += 1
    return classes, indices
