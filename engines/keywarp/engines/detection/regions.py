"""Objects from an R-FCN head's maps (section 4): proposals, position-sensitive pooling, voting, suppression."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.detection.anchors import grid_anchors
from keywarp.engines.detection.boxes import decode, visible
from keywarp.engines.detection.outputs import check_outputs
from keywarp.engines.detection.pooling import vote
from keywarp.engines.detection.ranking import best
from keywarp.engines.detection.selection import select
from keywarp.engines.detection.suppression import suppress
from keywarp.engines.manifest import RegionDetection
from keywarp.engines.result import Detections

OBJECTNESS, ANCHOR_DELTAS, CLASS_MAPS, BOX_MAPS = "objectness", "anchor_deltas", "class_maps", "box_maps"
_UNIT_STD = (1.0, 1.0, 1.0, 1.0)

Array = NDArray[np.float32]


class RegionDetector:
    """What follows the head's graph, for one size of input.

    The graph's outputs are channels last, so that everything here reads contiguous memory:

    ===============  ========================  =====================================================================
    `objectness`     (1, rows, columns, A)     how likely the anchors are objects; only the ranking matters
    `anchor_deltas`  (1, rows, columns, 4 A)   dx, dy, dw, dh of the first anchor, then of the next
    `class_maps`     (1, rows, columns,        before the softmax; channel bin * classes + class, the background
                     k^2 classes)              first, bin = row * k + column
    `box_maps`       (1, rows, columns, 4 k^2) channel bin * 4 + j for dx, dy, dw, dh
    ===============  ========================  =====================================================================
    """

    def __init__(self, settings: RegionDetection, classes: int, height: int, width: int) -> None:
        """Precompute the anchors and compile the code: seconds where it isn't in numba's cache.

        Args:
            settings: See there.
            classes: With the background, which is the first.
            height: Of the network's input, pixels.
            width: Of the network's input, pixels.
        """
        self._settings = settings
        self._height, self._width = height, width
        rows, columns = -(-height // settings.stride), -(-width // settings.stride)
        anchors, bins = len(settings.anchor_ratios) * len(settings.anchor_scales), settings.pooling**2
        channels = {OBJECTNESS: anchors, ANCHOR_DELTAS: 4 * anchors, CLASS_MAPS: bins * classes, BOX_MAPS: bins * 4}
        self._shapes = {name: (1, rows, columns, count) for name, count in channels.items()}
        self._anchors = grid_anchors(settings, rows, columns)
        self.detect({name: np.zeros(shape, np.float32) for name, shape in self._shapes.items()})

    def detect(self, outputs: Mapping[str, Array]) -> Detections:
        """Find the objects.

        Values that aren't numbers never make an object.

        Args:
            outputs: The head's, by name; C-contiguous, for speed. They are only read.

        Returns:
            Objects with boxes in pixels of the network's input, inside of it and not empty.

        Raises:
            BundleError: An output is missing or of another type or shape.
        """
        check_outputs(outputs, self._shapes)
        objectness, anchor_deltas, class_maps, box_maps = (np.ascontiguousarray(outputs[name]) for name in self._shapes)
        regions = self.propose(objectness, anchor_deltas)
        return self.select(regions, self.pool(regions, class_maps), self.pool(regions, box_maps))

    def propose(self, objectness: Array, anchor_deltas: Array) -> Array:
        """The regions (P, 4), the most likely first: x1, y1, x2, y2 in pixels, inside the input and not empty."""
        settings = self._settings
        candidates = best(objectness.reshape(-1), settings.candidates)
        deltas = anchor_deltas.reshape(-1, 4)[candidates]
        boxes = decode(deltas, self._anchors[candidates], _UNIT_STD, self._height, self._width)
        boxes = boxes[visible(boxes)]
        groups = np.zeros(len(boxes), np.intp)
        return boxes[suppress(boxes, groups, settings.proposal_iou, settings.proposals)]

    def pool(self, regions: Array, maps: Array) -> Array:
        """The average of each region's bins: (P, classes) logits or (P, 4) deltas."""
        _, rows, columns, _ = maps.shape
        bins, scale = self._settings.pooling, np.float32(1 / self._settings.stride)
        return vote(maps.reshape(rows, columns, bins**2, -1), regions, bins, scale)

    def select(self, regions: Array, logits: Array, deltas: Array) -> Detections:
        """The objects among the regions: softmax, box regression, threshold, suppression within each class."""
        settings = self._settings
        boxes = decode(deltas, regions, settings.box_std, self._height, self._width)
        scores = _softmax(logits)
        return select(boxes, scores, settings, candidates=scores.size)


def _softmax(logits: Array) -> Array:
    """Over the last axis. In double precision, so that the order of summation doesn't matter."""
    with np.errstate(invalid="ignore"):  # of logits that aren't finite: their scores aren't numbers
        powers = np.exp(logits - logits.max(axis=1, keepdims=True).astype(np.float64))
        scores: Array = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return scores
