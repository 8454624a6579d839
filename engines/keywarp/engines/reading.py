"""The task's last step outside of the graph: from a fused graph's outputs to a result."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.errors import BundleError
from keywarp.engines.fusion import LABELS
from keywarp.engines.manifest import Manifest, RegionDetection
from keywarp.engines.result import Detections, LabelMap, Output


class Reader(Protocol):
    """Reads results off the outputs of the fused graphs, for one size of the network's input."""

    def read(self, outputs: Mapping[str, NDArray[Any]], height: int, width: int) -> Output:
        """Make a result of what the graph put out.

        Args:
            outputs: By name; they are the program's own, and only valid until it runs again.
            height: Of the frame, pixels.
            width: Of the frame, pixels.

        Raises:
            BundleError: The outputs aren't what the manifest says.
        """
        ...


def open_reader(manifest: Manifest, height: int, width: int) -> Reader:
    """The reader that a bundle's task wants.

    Args:
        manifest: The bundle's.
        height: Of the network's input, pixels.
        width: Of the network's input, pixels.
    """
    reader = DetectionReader if manifest.task == "detection" else SegmentationReader
    return reader(manifest, height, width)


class SegmentationReader:
    """Takes the labels, which are at the network's resolution."""

    def __init__(self, manifest: Manifest, height: int, width: int) -> None:
        self._shape = (1, height, width)
        self._classes = len(manifest.classes)

    def read(self, outputs: Mapping[str, NDArray[Any]], height: int, width: int) -> LabelMap:  # noqa: ARG002
        """See `Reader.read`."""
        labels = outputs[LABELS]
        if labels.shape != self._shape or labels.max() >= self._classes:
            raise BundleError(
                f"head.onnx should score {self._classes} classes, for labels of shape {self._shape}; "
                f"they have shape {labels.shape} and go to {labels.max()}"
            )
        return LabelMap(labels[0].copy())


class DetectionReader:
    """Finds boxes, and brings them to the frame's size."""

    def __init__(self, manifest: Manifest, height: int, width: int) -> None:
        # numba, which they are compiled by, takes a while to import
        from keywarp.engines.detection import DenseDetector, RegionDetector

        assert manifest.detection is not None  # as the manifest makes sure
        self._size = (height, width)
        classes = len(manifest.classes)
        self._detector: DenseDetector | RegionDetector = (
            RegionDetector(manifest.detection, classes, height, width)
            if isinstance(manifest.detection, RegionDetection)
            else DenseDetector(manifest.detection, classes, height, width)
        )

    def read(self, outputs: Mapping[str, NDArray[Any]], height: int, width: int) -> Detections:
        """See `Reader.read`."""
        found = self._detector.detect(outputs)
        x, y = width / self._size[1], height / self._size[0]
        boxes = found.xyxy * np.array([x, y, x, y], np.float32)
        np.minimum(boxes, np.array([width, height, width, height], np.float32), out=boxes)  # the product is rounded
        return Detections(boxes, found.confidence, found.class_id)
