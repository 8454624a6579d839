"""Select the objects to report among scored boxes."""

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.detection.boxes import nonempty
from keywarp.engines.detection.ranking import best_indices
from keywarp.engines.detection.suppression import suppress
from keywarp.engines.manifest import DenseDetection, RegionDetection
from keywarp.engines.result import Detections


def select(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    settings: DenseDetection | RegionDetection,
    candidates: int,
) -> Detections:
    """Select objects by the threshold, the suppression within each class, and the limit over all classes.

    Args:
        boxes: The boxes, (n, 4), x1, y1, x2, y2. Empty ones are ignored.
        scores: The probabilities, (n, classes). The first column, the background, isn't read, and NaN is ignored.
        settings: The settings `threshold`, `iou` and `limit`.
        candidates: The most pairs of box and class that enter the suppression.

    Returns:
        The objects, the most certain first. Equally certain ones are in the order of their classes, then of the boxes.
    """
    certain = (scores[:, 1:] >= np.float32(settings.threshold)) & nonempty(boxes)[:, np.newaxis]
    classes, indices = np.nonzero(certain.T)
    classes += 1
    order = best_indices(scores[indices, classes], candidates)
    classes, indices = classes[order], indices[order]
    kept = suppress(boxes[indices], classes, settings.iou, settings.limit)
    classes, indices = classes[kept], indices[kept]
    return Detections(boxes[indices], scores[indices, classes], classes)
