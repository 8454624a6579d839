"""Find objects in the output of a head that predicts boxes and their scores directly, such as SSD."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.detection.outputs import check_outputs
from keywarp.engines.detection.selection import select, within
from keywarp.engines.errors import BundleError
from keywarp.engines.manifest import DenseDetection
from keywarp.engines.result import Detections

BOXES, SCORES = "boxes", "scores"
_ROUNDING = 1e-2  # tolerance for 16-bit arithmetic


class DenseDetector:
    """Finds objects in the head's outputs, for one input size.

    ========  ================  ==================================================================
    `boxes`   (1, n, 4)         x1, y1, x2, y2 in pixels of the input
    `scores`  (1, n, classes)   probabilities, with the background first
    ========  ================  ==================================================================
    """

    def __init__(self, settings: DenseDetection, classes: int, height: int, width: int) -> None:
        """Compile the code, which takes seconds if it isn't in numba's cache.

        Args:
            settings: The manifest's settings.
            classes: The number of classes, including the background, which is the first.
            height: The height of the networks' input in pixels.
            width: The width of the networks' input in pixels.
        """
        self._settings = settings
        self._shapes = {BOXES: (1, "n", 4), SCORES: (1, "n", classes)}
        self._corner = np.array([width, height, width, height], np.float32)
        self.detect({BOXES: np.zeros((1, 1, 4), np.float32), SCORES: np.zeros((1, 1, classes), np.float32)})

    def detect(self, outputs: Mapping[str, NDArray[np.float32]]) -> Detections:
        """Find the objects. NaN values never make an object.

        Args:
            outputs: The head's outputs by name. They aren't changed.

        Returns:
            The objects. Their boxes are in pixels of the networks' input, inside of it and not empty.

        Raises:
            BundleError: If an output is missing or has another type or shape, or the scores aren't probabilities.
        """
        check_outputs(outputs, self._shapes)
        boxes, scores = outputs[BOXES][0], outputs[SCORES][0]
        if not within(scores, 1 + _ROUNDING) and not (
            np.nanmin(scores) >= -_ROUNDING and np.nanmax(scores) <= 1 + _ROUNDING
        ):
            raise BundleError(
                f"head.onnx should give scores from 0 to 1, but they range from {np.nanmin(scores):.3g} to "
                f"{np.nanmax(scores):.3g}: check whether the graph lacks the softmax"
            )
        clipped = np.clip(boxes, 0, self._corner)
        return select(clipped, scores, self._settings, self._settings.candidates)
