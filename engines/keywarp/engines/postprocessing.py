"""Turn the outputs of a fused graph into a result."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.errors import BundleError
from keywarp.engines.fusion import LABELS
from keywarp.engines.manifest import Manifest, RegionDetection
from keywarp.engines.result import Detections, LabelMap, Output


class Postprocessor(Protocol):
    """Turns the outputs of the fused graphs into results, for one size of the networks' input."""

    def run(self, outputs: Mapping[str, NDArray[Any]], height: int, width: int) -> Output:
        """Turn a graph's outputs into a result.

        Args:
            outputs: The outputs by name. They belong to the program and are valid until it runs again.
            height: The frame's height in pixels.
            width: The frame's width in pixels.

        Raises:
            BundleError: If the outputs don't fit the manifest.
        """
        ...


def open_postprocessor(manifest: Manifest, height: int, width: int) -> Postprocessor:
    """Return the postprocessor for a bundle's task.

    Args:
        manifest: The bundle's manifest.
        height: The height of the networks' input in pixels.
        width: The width of the networks' input in pixels.
    """
    postprocessor = DetectionPostprocessor if manifest.task == "detection" else SegmentationPostprocessor
    return postprocessor(manifest, height, width)


class SegmentationPostprocessor:
    """Copies the label map, which has the resolution of the networks' input."""

    def __init__(self, manifest: Manifest, height: int, width: int) -> None:
        self._shape = (1, height, width)
        self._classes = len(manifest.classes)

    def run(self, outputs: Mapping[str, NDArray[Any]], height: int, width: int) -> LabelMap:  # noqa: ARG002
        """See `Postprocessor.run`."""
        labels = outputs[LABELS]
        if labels.shape != self._shape or labels.max() >= self._classes:
            raise BundleError(
                f"head.onnx should score {self._classes} classes and give labels of shape {self._shape}, "
                f"but the labels have shape {labels.shape} and reach {labels.max()}: correct the graph or the manifest"
            )
        return LabelMap(labels[0].copy())


class DetectionPostprocessor:
    """Finds boxes and scales them to the frame's size."""

    def __init__(self, manifest: Manifest, height: int, width: int) -> None:
        # Imported here, because numba, which compiles the detectors, takes a while to import.
        from keywarp.engines.detection import DenseDetector, RegionDetector

        assert manifest.detection is not None  # ensured by the manifest's validation
        self._size = (height, width)
        classes = len(manifest.classes)
        self._detector: DenseDetector | RegionDetector = (
            RegionDetector(manifest.detection, classes, height, width)
            if isinstance(manifest.detection, RegionDetection)
            else DenseDetector(manifest.detection, classes, height, width)
        )

    def run(self, outputs: Mapping[str, NDArray[Any]], height: int, width: int) -> Detections:
        """See `Postprocessor.run`."""
        found = self._detector.detect(outputs)
        x, y = width / self._size[1], height / self._size[0]
        boxes = found.xyxy * np.array([x, y, x, y], np.float32)
        # Rounding may have moved an edge out of the frame.
        np.minimum(boxes, np.array([width, height, width, height], np.float32), out=boxes)
        return Detections(boxes, found.confidence, found.class_id)
