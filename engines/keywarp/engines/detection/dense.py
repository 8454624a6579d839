"""Objects from a head that scores boxes by itself: SSD and its like."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.detection.outputs import check_outputs
from keywarp.engines.detection.selection import select
from keywarp.engines.errors import BundleError
from keywarp.engines.manifest import DenseDetection
from keywarp.engines.result import Detections

BOXES, SCORES = "boxes", "scores"
_ROUNDING = 1e-2  # that 16-bit arithmetic may leave


class DenseDetector:
    """What follows the head's graph, for one size of input.

    ========  ================  ==================================================================
    `boxes`   (1, n, 4)         x1, y1, x2, y2 in pixels of the input
    `scores`  (1, n, classes)   probabilities, the background's first
    ========  ================  ==================================================================
    """

    def __init__(self, settings: DenseDetection, classes: int, height: int, width: int) -> None:
        """Compile the code: seconds where it isn't in numba's cache.

        Args:
            settings: See there.
            classes: With the background, which is the first.
            height: Of the network's input, pixels.
            width: Of the network's input, pixels.
        """
        self._settings = settings
        self._shapes = {BOXES: (1, "n", 4), SCORES: (1, "n", classes)}
        self._corner = np.array([width, height, width, height], np.float32)
        self.detect({BOXES: np.zeros((1, 1, 4), np.float32), SCORES: np.zeros((1, 1, classes), np.float32)})

    def detect(self, outputs: Mapping[str, NDArray[np.float32]]) -> Detections:
        """Find the objects.

        Values that aren't numbers never make an object.

        Args:
            outputs: The head's, by name. They are only read.

        Returns:
            Objects with boxes in pixels of the network's input, inside of it and not empty.

        Raises:
            BundleError: An output is missing or of another type or shape, or the scores are no probabilities.
        """
        check_outputs(outputs, self._shapes)
        boxes, scores = outputs[BOXES][0], outputs[SCORES][0]
        if scores.size and not (np.nanmin(scores) >= -_ROUNDING and np.nanmax(scores) <= 1 + _ROUNDING):
            raise BundleError(
                f"head.onnx should yield scores from 0 to 1, they go from {np.nanmin(scores):.3g} to "
                f"{np.nanmax(scores):.3g}: was the softmax left out?"
            )
        clipped = np.clip(boxes, 0, self._corner)
        return select(clipped, scores, self._settings, self._settings.candidates)
