"""Agreement of two results on one frame, as counts that add up over frames.

The counts of a segmentation or detection are int64 (classes, 3): for each class what matches, what was found, and what
was expected. In a segmentation they are pixels, in a detection boxes. Class 0 counts in a segmentation only. Dense maps
have parts of the range of values in place of classes (`keywarp.engines.comparison.value_agreement`).
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.comparison.objects import match_objects
from keywarp.engines.comparison.value_agreement import ValueAgreement
from keywarp.engines.manifest import Manifest
from keywarp.engines.result import Detections, LabelMap, Output

Counts = NDArray[np.int64]  # (rows, columns), whose meaning the measure knows; those of several frames are added up


class Measure(Protocol):
    """What agreement means for one task."""

    name: str  # of the figure, for people
    sameness_name: str  # of the figure that `sameness` returns

    def count(self, found: Output, expected: Output) -> Counts:
        """Compare two results on one frame.

        Args:
            found: The result to judge.
            expected: The result that counts as the truth.
        """
        ...

    def agreement(self, counts: Counts) -> float:
        """Return the agreement, 0..1, over all frames whose counts were added up. Where nothing was counted, it is 1.

        Args:
            counts: The sum of the frames' counts.
        """
        ...

    def sameness(self, counts: Counts) -> float:
        """Return how far results are the same, 0..1, to compare runs of the same network.

        It is the share of the pixels whose labels are the same, and otherwise the agreement: the mean over the classes
        would count a few pixels of a rare class as much as a whole background.

        Args:
            counts: The sum of the frames' counts.
        """
        ...

    def mistakes(self, counts: Counts) -> int:
        """Return the number of pixels or boxes that don't agree.

        Args:
            counts: One frame's counts.
        """
        ...

    def figures(self, counts: Counts) -> dict[str, float]:
        """Return further figures, 0..1, by name.

        Args:
            counts: The sum of the frames' counts.
        """
        ...


def open_measure(manifest: Manifest, confidence: float = 0.0) -> Measure:
    """Return the measure of a bundle's task.

    Args:
        manifest: The bundle's manifest.
        confidence: The least confidence of the boxes that count, 0..1.
    """
    classes = len(manifest.classes)
    if manifest.task == "dense":
        return ValueAgreement()
    return BoxAgreement(classes, confidence) if manifest.task == "detection" else LabelAgreement(classes)


class LabelAgreement:
    """Agreement of label maps: the mean of the classes' intersection over union.

    The mean is over the classes that the expected results contain. Pixels of another class aren't lost: they are
    missing in the classes that were expected there.
    """

    name = "mIoU"
    sameness_name = "pixels with the same label"

    def __init__(self, classes: int) -> None:
        self._classes = classes

    def count(self, found: Output, expected: Output) -> Counts:
        """See `Measure.count`. Counts are pixels at the model's resolution."""
        assert isinstance(found, LabelMap)
        assert isinstance(expected, LabelMap)
        first, second = found.labels.ravel(), expected.labels.ravel()
        sets = (first[first == second], first, second)
        return np.stack([np.bincount(s, minlength=self._classes) for s in sets], axis=1).astype(np.int64)

    def agreement(self, counts: Counts) -> float:
        """See `Measure.agreement`."""
        matching, found, expected = counts.T
        seen = expected > 0
        return float((matching[seen] / (found + expected - matching)[seen]).mean()) if seen.any() else 1.0

    def sameness(self, counts: Counts) -> float:
        """See `Measure.sameness`."""
        return self.figures(counts)["pixels"]

    def mistakes(self, counts: Counts) -> int:
        """See `Measure.mistakes`."""
        return _mistakes(counts)

    def figures(self, counts: Counts) -> dict[str, float]:
        """Return the share of the pixels whose labels are the same."""
        matching, _, expected = counts.sum(axis=0)
        return {"pixels": _ratio(matching, expected)}


class BoxAgreement:
    """Agreement of boxes: the F1 score of all boxes of all classes together.

    A box matches a box of the same class with an IoU of at least 0.5, and no box matches twice. Objects with masks or
    keypoints match by these instead, see `overlap`. A frame without a box in either result adds nothing to a sum of
    counts; by itself it agrees fully.
    """

    name = "F1"
    sameness_name = "F1 of boxes"

    def __init__(self, classes: int, confidence: float = 0.0) -> None:
        """Choose what counts.

        Args:
            classes: The number of classes, with the background.
            confidence: The least confidence of the boxes that count, 0..1.
        """
        self._classes = classes
        self._confidence = confidence

    def count(self, found: Output, expected: Output) -> Counts:
        """See `Measure.count`. Counts are boxes."""
        first, second = self.confident(found), self.confident(expected)
        matched = [first.class_id[i] for i, _ in match_objects(first, second)]
        sets = (np.array(matched, np.intp), first.class_id, second.class_id)
        return np.stack([np.bincount(s, minlength=self._classes) for s in sets], axis=1).astype(np.int64)

    def confident(self, output: Output) -> Detections:
        """Return the boxes that count."""
        assert isinstance(output, Detections)
        return output.take(np.flatnonzero(output.confidence >= self._confidence))

    def agreement(self, counts: Counts) -> float:
        """See `Measure.agreement`."""
        matching, found, expected = counts.sum(axis=0)
        return _ratio(2 * matching, found + expected)

    def sameness(self, counts: Counts) -> float:
        """See `Measure.sameness`."""
        return self.agreement(counts)

    def mistakes(self, counts: Counts) -> int:
        """See `Measure.mistakes`."""
        return _mistakes(counts)

    def figures(self, counts: Counts) -> dict[str, float]:
        """Return the precision and the recall."""
        matching, found, expected = counts.sum(axis=0)
        return {"precision": _ratio(matching, found), "recall": _ratio(matching, expected)}


def _mistakes(counts: Counts) -> int:
    matching, found, expected = counts.sum(axis=0).tolist()
    return int(max(found, expected) - matching)


def _ratio(part: np.int64 | int, whole: np.int64 | int) -> float:
    return float(part / whole) if whole else 1.0
