"""Accuracy of detected boxes against labels: precision, recall, F1, and average precision as COCO counts it.

The best detections choose first. Each takes the label that it overlaps most, of those that are free, from an IoU of 0.5
on. A detection without a label is wrong, unless half of it or more lies in a region to ignore: such a detection doesn't
count at all.

Example:
    >>> truth = Truth(np.array([[0, 0, 10, 20]], np.float32))
    >>> figures = measure([judge(np.array([[0, 0, 10, 18]]), np.array([0.9]), truth)], threshold=0.4)
    >>> figures.precision, figures.recall, figures.ap
    (1.0, 1.0, 1.0)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

LEAST_IOU = 0.5  # overlap from which a detection finds a label
LEAST_IGNORED = 0.5  # part of a detection in a region to ignore from which it doesn't count
RECALLS = np.linspace(0, 1, 101)  # at which COCO reads the precision

Boxes = npt.NDArray[np.float32]  # (n, 4): x1, y1, x2, y2 in pixels


def no_boxes() -> Boxes:
    """Return an array of no boxes."""
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True, eq=False)
class Truth:
    """The labels of one class in one frame."""

    boxes: Boxes
    ignored: Boxes = field(default_factory=no_boxes)  # regions in which nothing counts


@dataclass(frozen=True, eq=False)
class Judged:
    """The detections of one frame that count."""

    position: npt.NDArray[np.intp]  # (n,), among all detections of the frame, the most confident first
    confidence: npt.NDArray[np.float64]  # (n,), 0..1
    label: npt.NDArray[np.intp]  # (n,): the label that each found, or -1
    labels: int  # the number of labels

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each detection found a label, (n,)."""
        return self.label >= 0


@dataclass(frozen=True)
class Accuracy:
    """The accuracy over several frames."""

    precision: float  # 0..1, of the detections from the threshold on; 1 if there is none
    recall: float  # 0..1, likewise; 1 if there is no label
    f1: float  # 0..1, likewise
    ap: float  # 0..1, average precision over all thresholds; 1 if there is no label
    labels: int  # the number of labels


def judge(boxes: npt.NDArray[np.floating], confidence: npt.NDArray[np.floating], truth: Truth) -> Judged:
    """Match the detections of one class in one frame with its labels.

    Args:
        boxes: The detected boxes, (n, 4), as in `Boxes`.
        confidence: Their confidences, (n,).
        truth: The labels.
    """
    overlaps = _intersections(boxes, truth.boxes)
    overlaps /= np.maximum(_areas(boxes)[:, None] + _areas(truth.boxes) - overlaps, 1e-9)
    inside = _intersections(boxes, truth.ignored) / np.maximum(_areas(boxes)[:, None], 1e-9)
    ignored: npt.NDArray[np.bool_] = np.any(inside >= LEAST_IGNORED, axis=1)
    free = np.ones(len(truth.boxes), np.bool_)
    counted: list[int] = []
    label: list[int] = []
    for i in np.argsort(-confidence, kind="stable").tolist():
        candidates = np.where(free, overlaps[i], 0)
        best = int(candidates.argmax()) if free.any() else -1
        if best >= 0 and candidates[best] >= LEAST_IOU:
            free[best] = False
        elif ignored[i]:
            continue
        else:
            best = -1
        counted.append(i)
        label.append(best)
    position = np.array(counted, np.intp)
    return Judged(position, confidence[position].astype(np.float64), np.array(label, np.intp), len(truth.boxes))


def measure(frames: Sequence[Judged], threshold: float) -> Accuracy:
    """Measure the accuracy over frames.

    Args:
        frames: The judged detections, with confidences far below the threshold too, for the average precision.
        threshold: The least confidence for precision, recall and F1, 0..1.
    """
    labels = sum(frame.labels for frame in frames)
    confidence = np.concatenate([frame.confidence for frame in frames]) if frames else np.zeros(0)
    right = np.concatenate([frame.right for frame in frames]) if frames else np.zeros(0, np.bool_)
    sure = right[confidence >= threshold]
    found, reported = int(sure.sum()), len(sure)
    return Accuracy(
        precision=found / reported if reported else 1.0,
        recall=found / labels if labels else 1.0,
        f1=2 * found / (reported + labels) if reported + labels else 1.0,
        ap=_average_precision(right[np.argsort(-confidence, kind="stable")], labels),
        labels=labels,
    )


def _average_precision(right: npt.NDArray[np.bool_], labels: int) -> float:
    """Return the mean of the best precision at or beyond each of COCO's recalls.

    Args:
        right: Whether each detection found a label, the most confident first.
        labels: The number of labels.
    """
    if not labels:
        return 1.0
    found = np.cumsum(right)
    precision = np.maximum.accumulate((found / np.arange(1, len(right) + 1))[::-1])[::-1]
    position = np.searchsorted(found / labels, RECALLS, side="left")
    return float(np.append(precision, 0.0)[position].mean())


def _areas(boxes: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    wide = boxes.astype(np.float64)
    return np.asarray(np.prod(wide[:, 2:] - wide[:, :2], axis=1))


def _intersections(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the common area of every two boxes, (n, m)."""
    first, second = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    return np.asarray(np.prod(np.maximum(sides, 0), axis=-1))
