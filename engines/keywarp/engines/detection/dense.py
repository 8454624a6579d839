"""Find objects in the output of a head that predicts boxes and their scores directly, such as SSD."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.detection.masks import box_masks, image_masks, prototype_masks
from keywarp.engines.detection.outputs import check_outputs
from keywarp.engines.detection.selection import select_rows, within
from keywarp.engines.errors import BundleError
from keywarp.engines.manifest import DenseDetection
from keywarp.engines.masks import InstanceMasks
from keywarp.engines.result import Detections

BOXES, SCORES = "boxes", "scores"
COEFFICIENTS, PROTOTYPES, MASKS, KEYPOINTS = "mask_coefficients", "mask_prototypes", "masks", "keypoints"
_ROUNDING = 1e-2  # tolerance for 16-bit arithmetic


class DenseDetector:
    """Finds objects in the head's outputs, for one input size.

    ===================  ================  =======================================================================
    `boxes`              (1, n, 4)         x1, y1, x2, y2 in pixels of the input
    `scores`             (1, n, classes)   probabilities, with the background first
    `mask_coefficients`  (1, n, k)         weights of the prototypes; with masks of the kind `prototypes`
    `mask_prototypes`    (1, k, h, w)      maps of the input; with masks of the kind `prototypes`
    `masks`              (1, n, h, w)      maps of the input or of each box; with masks of the kinds `image` and `box`
    `keypoints`          (1, n, K, 3)      x, y in pixels of the input, and confidence; with keypoints
    ===================  ================  =======================================================================
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
        self._shapes: dict[str, tuple[int | str, ...]] = {BOXES: (1, "n", 4), SCORES: (1, "n", classes)}
        if settings.masks == "prototypes":
            self._shapes |= {COEFFICIENTS: (1, "n", "k"), PROTOTYPES: (1, "k", "h", "w")}
        elif settings.masks:
            self._shapes[MASKS] = (1, "n", "h", "w")
        if settings.keypoints:
            self._shapes[KEYPOINTS] = (1, "n", len(settings.keypoints.names), 3)
        self._size = (height, width)
        self._corner = np.array([width, height, width, height], np.float32)
        nothing = {
            name: np.zeros([size if isinstance(size, int) else 1 for size in shape], np.float32)
            for name, shape in self._shapes.items()
        }
        self.detect(nothing)
        self._masks(nothing, np.zeros(1, np.intp), nothing[BOXES][0])

    def detect(self, outputs: Mapping[str, NDArray[np.float32]]) -> Detections:
        """Find the objects. NaN values never make an object.

        Args:
            outputs: The head's outputs by name. They aren't changed.

        Returns:
            The objects. Their boxes are in pixels of the networks' input, inside of it and not empty. Their masks have
            the input's resolution, and their keypoints are in its pixels, too.

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
        rows, classes = select_rows(clipped, scores, self._settings, self._settings.candidates)
        kept = clipped[rows]
        masks = self._masks(outputs, rows, kept)
        return Detections(kept, scores[rows, classes], classes, masks=masks, keypoints=_keypoints(outputs, rows))

    def _masks(
        self, outputs: Mapping[str, NDArray[np.float32]], rows: NDArray[np.intp], boxes: NDArray[np.float32]
    ) -> InstanceMasks | None:
        """Return the masks of the objects in some rows, or None if the model gives none."""
        if self._settings.masks is None:
            return None
        if self._settings.masks == "prototypes":
            return prototype_masks(outputs[COEFFICIENTS][0][rows], outputs[PROTOTYPES][0], boxes, *self._size)
        enlarge = image_masks if self._settings.masks == "image" else box_masks
        return enlarge(outputs[MASKS][0], rows, boxes, *self._size)


def _keypoints(outputs: Mapping[str, NDArray[np.float32]], rows: NDArray[np.intp]) -> NDArray[np.float32] | None:
    """Return the keypoints of the objects in some rows. Those that aren't finite become 0, without confidence."""
    if KEYPOINTS not in outputs:
        return None
    points: NDArray[np.float32] = outputs[KEYPOINTS][0][rows]
    points[~np.isfinite(points).all(axis=-1)] = 0
    points[..., 2] = np.clip(points[..., 2], 0, 1)
    return points
