"""How far two results show the same objects: by masks and keypoints if they have them, otherwise by boxes."""

import numpy as np
from numpy.typing import NDArray

from keywarp.engines import masks
from keywarp.engines.result import Detections

LEAST_OVERLAP = 0.5  # from which two objects of one class match
LEAST_CONFIDENCE = 0.5  # of the keypoints that count
AREA = 0.53  # of an object, as a share of its box; Ultralytics takes this for COCO's persons
# How far people who label COCO's keypoints of persons differ, as a share of the root of the person's area
_COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087),
    *(0.089, 0.089),
)


def match_objects(found: Detections, expected: Detections) -> list[tuple[int, int]]:
    """Pair objects of the same class, those that overlap most first.

    Args:
        found: The objects to judge.
        expected: The objects that count as the truth.

    Returns:
        The pairs as positions in `found` and `expected`. Each has an overlap of at least `LEAST_OVERLAP`.
    """
    overlaps = overlap(found, expected)
    overlaps[found.class_id[:, None] != expected.class_id[None]] = 0
    order = np.argsort(-overlaps, axis=None, kind="stable")[: np.count_nonzero(overlaps >= LEAST_OVERLAP)]
    rows, columns = np.unravel_index(order, overlaps.shape)
    pairs: list[tuple[int, int]] = []
    left, right = set(range(len(found))), set(range(len(expected)))
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if row in left and column in right:
            left.remove(row)
            right.remove(column)
            pairs.append((row, column))
    return pairs


def sigmas(count: int) -> tuple[float, ...]:
    """Return the deviations of so many keypoints as a share of the root of the object's area: COCO's, or 1 / count."""
    return _COCO_SIGMAS if count == len(_COCO_SIGMAS) else (1 / count,) * count


def overlap(found: Detections, expected: Detections) -> NDArray[np.float64]:
    """Return how far every two objects overlap, 0..1, (n, m).

    It is the IoU of the masks, or the keypoints' similarity, or the lower of the two. Two objects without either, or
    with masks that are both empty, have the IoU of their boxes.
    """
    boxes = _box_overlaps(found.xyxy, expected.xyxy)
    result = boxes
    if found.masks is not None and expected.masks is not None:
        result = masks.overlaps(found.masks, expected.masks)
        empty = (found.masks.areas() == 0)[:, None] & (expected.masks.areas() == 0)[None]
        result = np.where(empty, boxes, result)
    if found.keypoints is not None and expected.keypoints is not None:
        similar = _keypoint_similarity(found.keypoints, expected)
        similar = np.where(np.isnan(similar), boxes, similar)
        result = similar if found.masks is None else np.minimum(result, similar)
    return result


def _box_overlaps(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the intersection over union of every two boxes, (n, m). An empty box overlaps nothing."""
    a, b = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    intersection = np.prod(np.maximum(sides, 0), axis=-1)
    union = np.prod(a[..., 2:] - a[..., :2], axis=-1) + np.prod(b[..., 2:] - b[..., :2], axis=-1) - intersection
    return np.asarray(np.divide(intersection, union, out=np.zeros_like(intersection), where=intersection > 0))


def _keypoint_similarity(points: NDArray[np.float32], expected: Detections) -> NDArray[np.float64]:
    """Return COCO's object keypoint similarity (OKS), 0..1, (n, m); NaN where nothing expected is certain.

    Only points of `expected` that are certain count. Points that aren't COCO's have a deviation of 1 / K.
    """
    assert expected.keypoints is not None
    truth = expected.keypoints.astype(np.float64)
    sizes = expected.xyxy[:, 2:].astype(np.float64) - expected.xyxy[:, :2]
    areas = AREA * sizes.prod(axis=1)[None, :, None] + np.spacing(1)
    squares = ((points.astype(np.float64)[:, None, :, :2] - truth[None, :, :, :2]) ** 2).sum(axis=-1)
    near = np.exp(-squares / (2 * np.array(sigmas(truth.shape[1]))) ** 2 / areas / 2)
    certain = truth[..., 2] >= LEAST_CONFIDENCE
    totals = certain.sum(axis=1).astype(np.float64)
    totals[totals == 0] = np.nan
    return np.asarray((near * certain).sum(axis=-1) / totals)
