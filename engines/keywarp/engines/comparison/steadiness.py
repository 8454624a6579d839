"""The network's agreement with itself, when all that changes is where the picture's pixels lie on its grid.

Boxes near the threshold and labels at borders change if a picture moves by a single pixel. No propagation can be
expected to agree better with the network than the network does with itself.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.comparison.agreement import Counts, Measure
from keywarp.engines.engine import Engine
from keywarp.engines.preparation import place
from keywarp.engines.result import DenseMap, Detections, Output


def count_with_itself(engine: Engine, measure: Measure, image: NDArray[np.uint8], truth: Output) -> Counts:
    """Compare the result of a frame with that of the same frame, moved by one pixel of the network's input.

    Args:
        engine: The engine.
        measure: The task's measure.
        image: The frame, uint8 (H, W, 3), RGB.
        truth: The result of the frame.
    """
    height, width = image.shape[:2]
    placement = place(height, width, engine.bundle.manifest.image)
    pixels = min(max(round(width / placement.columns), 1), width - 1)
    result, _ = engine.key(_move_right(image, pixels))
    return measure.count(_move_left(result.output, pixels, width), truth)


def _move_right(image: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    return np.pad(image, ((0, 0), (pixels, 0), (0, 0)), mode="edge")[:, : image.shape[1]]


def _move_left(output: Output, pixels: int, width: int) -> Output:
    if isinstance(output, Detections):
        boxes = output.xyxy - np.array([pixels, 0, pixels, 0], np.float32)
        masks, points = output.masks, output.keypoints
        if masks is not None:
            masks = masks.crop(round(pixels * masks.width / width), 0, masks.width, masks.height)
        if points is not None:
            points = points - np.array([pixels, 0, 0], np.float32)
        return replace(output, xyxy=np.maximum(boxes, 0), masks=masks, keypoints=points)
    if isinstance(output, DenseMap):
        return DenseMap(_shift(output.values, pixels * output.values.shape[1] / width))
    columns = round(pixels * output.labels.shape[1] / width)
    return replace(output, labels=np.pad(output.labels[:, columns:], ((0, 0), (0, columns)), mode="edge"))


def _shift(values: NDArray[np.float32], columns: float) -> NDArray[np.float32]:
    """Move a map to the left by whole and parts of columns, between which it is interpolated."""
    last = values.shape[1] - 1
    places = np.minimum(np.arange(values.shape[1]) + columns, last)
    before = places.astype(np.intp)
    after, part = np.minimum(before + 1, last), (places - before).astype(np.float32)
    return np.asarray(values[:, before] * (1 - part) + values[:, after] * part, np.float32)
