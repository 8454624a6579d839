"""From scored boxes to the objects that are reported."""

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.detection.boxes import visible
from keywarp.engines.detection.ranking import best
from keywarp.engines.detection.suppression import suppress
from keywarp.engines.manifest import DenseDetection, RegionDetection
from keywarp.engines.result import Detections


def select(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    settings: DenseDetection | RegionDetection,
    candidates: int,
) -> Detections:
    """Threshold, suppression within each class, and the best of all classes.

    Args:
        boxes: (n, 4): x1, y1, x2, y2; empty ones are left out.
        scores: (n, classes), probabilities; the first column, the background, isn't read. What isn't a number is left
            out.
        settings: For `threshold`, `iou` and `limit`.
        candidates: How many pairs of box and class enter the suppression at most.

    Returns:
        The most certain first; equally certain ones in the order of class, then of the boxes.
    """
    certain = (scores[:, 1:] >= np.float32(settings.threshold)) & visible(boxes)[:, np.newaxis]
    classes, indices = np.nonzero(certain.T)
    classes += 1
    order = best(scores[indices, classes], candidates)
    classes, indices = classes[order], indices[order]
    kept = suppress(boxes[indices], classes, settings.iou, settings.limit)
    classes, indices = classes[kept], indices[kept]
    return Detections(boxes[indices], scores[indices, classes], classes)
