"""Find objects in an R-FCN head's maps (section 4): proposals, position-sensitive pooling, voting, suppression."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.detection.anchors import grid_anchors
from keywarp.engines.detection.boxes import decode, nonempty
from keywarp.engines.detection.outputs import check_outputs
from keywarp.engines.detection.pooling import Pooling
from keywarp.engines.detection.ranking import best_indices
from keywarp.engines.detection.selection import select
from keywarp.engines.detection.suppression import suppress
from keywarp.engines.manifest import RegionDetection
from keywarp.engines.result import Detections

OBJECTNESS, ANCHOR_DELTAS, CLASS_MAPS, BOX_MAPS = "objectness", "anchor_deltas", "class_maps", "box_maps"
_UNIT_STD = (1.0, 1.0, 1.0, 1.0)

Array = NDArray[np.float32]


def map_shapes(
    settings: RegionDetection, classes: int, height: int, width: int
) -> dict[str, tuple[int, int, int, int]]:
    """Return the shapes of the head's outputs by name, see `RegionDetector`, whose arguments these are."""
    rows, columns = -(-height // settings.stride), -(-width // settings.stride)
    anchors, bins = len(settings.anchor_ratios) * len(settings.anchor_scales), settings.pooling**2
    channels = {OBJECTNESS: anchors, ANCHOR_DELTAS: 4 * anchors, CLASS_MAPS: bins * classes, BOX_MAPS: bins * 4}
    return {name: (1, rows, columns, count) for name, count in channels.items()}


class RegionDetector:
    """Finds objects in the head's outputs, for one input size.

    The graph's outputs are channels-last, so that everything here reads contiguous memory:

    ===============  ========================  =====================================================================
    `objectness`     (1, rows, columns, A)     how likely the anchors are objects; only the order matters
    `anchor_deltas`  (1, rows, columns, 4 A)   dx, dy, dw, dh of the first anchor, then of the next
    `class_maps`     (1, rows, columns,        before the softmax; channel bin * classes + class, the background
                     k^2 classes)              first, bin = row * k + column
    `box_maps`       (1, rows, columns, 4 k^2) channel bin * 4 + j for dx, dy, dw, dh
    ===============  ========================  =====================================================================
    """

    def __init__(self, settings: RegionDetection, classes: int, height: int, width: int) -> None:
        """Compute the anchors and compile the code, which takes seconds if it isn't in numba's cache.

        Args:
            settings: The manifest's settings.
            classes: The number of classes, including the background, which is the first.
            height: The height of the networks' input in pixels.
            width: The width of the networks' input in pixels.
        """
        self._settings = settings
        self._height, self._width = height, width
        self._shapes = map_shapes(settings, classes, height, width)
        _, rows, columns, _ = self._shapes[OBJECTNESS]
        self._anchors = grid_anchors(settings, rows, columns)
        self._pooling = Pooling(settings.pooling, np.float32(1 / settings.stride))
        self.detect({name: np.zeros(shape, np.float32) for name, shape in self._shapes.items()})

    def detect(self, outputs: Mapping[str, Array]) -> Detections:
        """Find the objects. NaN values never make an object.

        Args:
            outputs: The head's outputs by name, C-contiguous for speed. They aren't changed.

        Returns:
            The objects. Their boxes are in pixels of the networks' input, inside of it and not empty.

        Raises:
            BundleError: If an output is missing or has another type or shape.
        """
        check_outputs(outputs, self._shapes)
        objectness, anchor_deltas, class_maps, box_maps = (np.ascontiguousarray(outputs[name]) for name in self._shapes)
        regions = self.propose(objectness, anchor_deltas)
        regions, scores = self.classify(regions, class_maps)
        return self.select(regions, scores, self.pool(regions, box_maps))

    def propose(self, objectness: Array, anchor_deltas: Array) -> Array:
        """Return the proposals, (P, 4), x1, y1, x2, y2 in pixels, the most likely first, not empty."""
        settings = self._settings
        candidates = best_indices(objectness.reshape(-1), settings.candidates)
        deltas = anchor_deltas.reshape(-1, 4)[candidates]
        boxes = decode(deltas, self._anchors[candidates], _UNIT_STD, self._height, self._width)
        boxes = boxes[nonempty(boxes)]
        groups = np.zeros(len(boxes), np.intp)
        return boxes[suppress(boxes, groups, settings.proposal_iou, settings.proposals)]

    def classify(self, regions: Array, class_maps: Array) -> tuple[Array, Array]:
        """Return the regions that may be objects, (n, 4), and their scores by class, (n, classes).

        The others reach the threshold with no class, so their boxes needn't be refined.
        """
        scores = _softmax(self.pool(regions, class_maps))
        certain = (scores[:, 1:] >= np.float32(self._settings.threshold)).any(axis=1)
        return regions[certain], scores[certain]

    def pool(self, regions: Array, maps: Array) -> Array:
        """Return the average of each region's bins, (P, classes) logits or (P, 4) deltas."""
        _, rows, columns, _ = maps.shape
        return self._pooling.vote(maps.reshape(rows, columns, self._settings.pooling**2, -1), regions)

    def select(self, regions: Array, scores: Array, deltas: Array) -> Detections:
        """Return the objects among the regions, by box regression, threshold and suppression per class."""
        settings = self._settings
        boxes = decode(deltas, regions, settings.box_std, self._height, self._width)
        return select(boxes, scores, settings, candidates=scores.size)


def _softmax(logits: Array) -> Array:
    """Return the softmax over the last axis, in double precision, so that the order of summation doesn't matter."""
    with np.errstate(invalid="ignore"):  # logits that aren't finite have NaN scores
        powers = np.exp(logits - logits.max(axis=1, keepdims=True).astype(np.float64))
        scores: Array = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return scores
