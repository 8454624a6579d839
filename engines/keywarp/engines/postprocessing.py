"""Turn the outputs of a fused graph into a result."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.errors import BundleError
from keywarp.engines.fusion import LABELS, PLAIN, SCORES, GraphStyle
from keywarp.engines.last_step import ObjectReader, has_last_step
from keywarp.engines.manifest import Manifest, RegionDetection
from keywarp.engines.placement import Placement
from keywarp.engines.result import DenseMap, Detections, LabelMap, Output
from keywarp.engines.signatures import VALUES


class Postprocessor(Protocol):
    """Turns the outputs of the fused graphs into results, for one size of the networks' input."""

    def run(self, outputs: Mapping[str, NDArray[Any]], placement: Placement, height: int, width: int) -> Output:
        """Turn a graph's outputs into a result.

        Args:
            outputs: The outputs by name. They belong to the program and are valid until it runs again.
            placement: Where the frame lies in the networks' input.
            height: The frame's height in pixels.
            width: The frame's width in pixels.

        Raises:
            BundleError: If the outputs don't fit the manifest.
        """
        ...


def open_postprocessor(manifest: Manifest, height: int, width: int, style: GraphStyle = PLAIN) -> Postprocessor:
    """Return the postprocessor for a bundle's task.

    Args:
        manifest: The bundle's manifest.
        height: The height of the networks' input in pixels.
        width: The width of the networks' input in pixels.
        style: How the graphs were fused.
    """
    if manifest.task == "dense":
        return DensePostprocessor(manifest, height, width)
    if manifest.task == "detection":
        return DetectionPostprocessor(_open_detector(manifest, height, width, style))
    from_scores = style.host_labels and not style.last_step and manifest.scores_stride > 1
    return (ScorePostprocessor if from_scores else LabelPostprocessor)(manifest, height, width)


class LabelPostprocessor:
    """Copies the label map, which has the resolution of the networks' input, without the labels of padding."""

    def __init__(self, manifest: Manifest, height: int, width: int) -> None:
        self._shape = (1, height, width)
        self._classes = len(manifest.classes)

    def run(
        self,
        outputs: Mapping[str, NDArray[Any]],
        placement: Placement,
        height: int,  # noqa: ARG002
        width: int,  # noqa: ARG002
    ) -> LabelMap:
        """See `Postprocessor.run`."""
        labels = outputs[LABELS]
        if labels.shape != self._shape or labels.max() >= self._classes:
            raise BundleError(
                f"head.onnx should score {self._classes} classes and give labels of shape {self._shape}, "
                f"but the labels have shape {labels.shape} and reach {labels.max()}: correct the graph or the manifest"
            )
        return LabelMap(placement.crop(labels[0]).copy())


class ScorePostprocessor:
    """Makes the label map of scores."""

    def __init__(self, manifest: Manifest, height: int, width: int) -> None:
        # Imported here, because numba, which compiles it, takes a while to import.
        from keywarp.engines.labels import Labeller

        self._labeller = Labeller(height, width, manifest.scores_stride)
        self._shape = (1, len(manifest.classes), *self._labeller.cells)

    def run(
        self,
        outputs: Mapping[str, NDArray[Any]],
        placement: Placement,
        height: int,  # noqa: ARG002
        width: int,  # noqa: ARG002
    ) -> LabelMap:
        """See `Postprocessor.run`."""
        scores = outputs[SCORES]
        if scores.shape != self._shape:
            raise BundleError(
                f"head.onnx should score {self._shape[1]} classes and give scores of shape {self._shape}, "
                f"but they have shape {scores.shape}: correct the graph or the manifest"
            )
        return LabelMap(np.ascontiguousarray(placement.crop(self._labeller.label(scores[0]))))


class DensePostprocessor:
    """Copies the values, without those of padding."""

    def __init__(self, manifest: Manifest, height: int, width: int) -> None:
        assert manifest.dense is not None  # ensured by the manifest's validation
        self._stride = manifest.dense.stride
        self._shape = (1, 1, -(-height // self._stride), -(-width // self._stride))

    def run(
        self,
        outputs: Mapping[str, NDArray[Any]],
        placement: Placement,
        height: int,  # noqa: ARG002
        width: int,  # noqa: ARG002
    ) -> DenseMap:
        """See `Postprocessor.run`."""
        values = outputs[VALUES]
        if values.shape != self._shape:
            raise BundleError(
                f"head.onnx should give values of shape {self._shape}, a stride of {self._stride}, "
                f"but they have shape {values.shape}: correct the graph or the manifest"
            )
        covering = np.array(placement.cover_exactly(values[0, 0], self._stride), np.float32)
        if not np.isfinite(covering).all():
            wrong = np.count_nonzero(~np.isfinite(covering))
            raise BundleError(
                f"head.onnx gave {wrong} values of {covering.size} that are infinite or not a number: clip them in the "
                f"graph, or run the model in fp32 if they exceed what 16 bits hold"
            )
        return DenseMap(covering)


class Detector(Protocol):
    """Finds objects in a graph's outputs."""

    def detect(self, outputs: Mapping[str, NDArray[Any]]) -> Detections:
        """Return the objects, with boxes in pixels of the networks' input.

        Raises:
            BundleError: If the outputs don't fit the manifest.
        """
        ...


def _open_detector(manifest: Manifest, height: int, width: int, style: GraphStyle) -> Detector:
    # Imported here, because numba, which compiles the detectors, takes a while to import.
    from keywarp.engines.detection import DenseDetector, RegionDetector

    settings, classes = manifest.detection, len(manifest.classes)
    assert settings is not None  # ensured by the manifest's validation
    if not isinstance(settings, RegionDetection):
        return DenseDetector(settings, classes, height, width)
    return (
        ObjectReader()
        if style.last_step and has_last_step(manifest)
        else RegionDetector(settings, classes, height, width)
    )


class DetectionPostprocessor:
    """Finds boxes and converts them to pixels of the frame."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def run(self, outputs: Mapping[str, NDArray[Any]], placement: Placement, height: int, width: int) -> Detections:
        """See `Postprocessor.run`."""
        found = self._detector.detect(outputs)
        x, y = width / placement.columns, height / placement.rows
        scale, corner = np.array([x, y, x, y], np.float32), np.array([width, height, width, height], np.float32)
        keypoints = found.keypoints
        if keypoints is not None:
            place = np.array([placement.left, placement.top, 0], np.float32)
            keypoints = (keypoints - place) * np.array([x, y, 1], np.float32)
        if not placement.is_padded:
            # Rounding may have moved an edge out of the frame.
            return replace(found, xyxy=np.minimum(found.xyxy * scale, corner), keypoints=keypoints)
        origin = np.array([placement.left, placement.top] * 2, np.float32)
        boxes = np.clip((found.xyxy - origin) * scale, 0, corner)
        masks = found.masks
        if masks is not None:
            masks = masks.crop(placement.left, placement.top, placement.columns, placement.rows)
        seen = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])  # the others are in the padding
        return replace(found, xyxy=boxes, keypoints=keypoints, masks=masks).take(np.flatnonzero(seen))
