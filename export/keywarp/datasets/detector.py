"""The teacher, a small COCO detector (SSD MobileNet v2, TensorFlow Lite) that runs on overlapping tiles of a frame."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.errors import DataError
from keywarp.datasets.types import Image

Grid = tuple[int, int]  # numbers of columns and rows of tiles
OVERLAP = 0.25  # fraction of a tile's side that it shares with its neighbour
# Boxes within this fraction of a tile's side from an inner edge count as cut off and are dropped, since a neighbouring
# or larger tile shows the whole object.
EDGE = 0.02
DUPLICATE_IOU = 0.5  # lowest intersection over union of two boxes of the same object
DUPLICATE_OVERLAP = 0.8  # lowest intersection over the smaller area of two boxes of the same object


@dataclass(frozen=True)
class TeacherDetection:
    """An object that the teacher detects."""

    category: int  # COCO category, as its index in the model's label file
    score: float  # 0..1
    box: tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels, or in 0..1 of a tile


class Detector:
    """A detector for frames of any size."""

    def __init__(self, model: Path, threads: int = 2) -> None:
        """Load the network.

        Args:
            model: A TensorFlow Lite detector with the four `TFLite_Detection_PostProcess` outputs.
            threads: The number of threads to run it on.

        Raises:
            DataError: If the file can't be read.
        """
        from ai_edge_litert.interpreter import Interpreter  # imported here, since only labelling needs it

        try:
            self._network = Interpreter(str(model), num_threads=threads)
        except ValueError as error:
            raise DataError(f"{model} is not a TensorFlow Lite model: {error}") from error
        self._network.allocate_tensors()
        self._input = self._network.get_input_details()[0]
        self._outputs = [detail["index"] for detail in self._network.get_output_details()]

    def __call__(
        self, frame: Image, grids: tuple[Grid, ...], groups: tuple[tuple[int, ...], ...], threshold: float
    ) -> list[TeacherDetection]:
        """Detect objects on every tile of every grid, and merge the results.

        Args:
            frame: The frame.
            grids: The grids of tiles to search. (1, 1) is the whole frame; finer grids find smaller objects.
            groups: The categories of each class. Overlapping boxes within a group count as one object, and the one with
                the highest score is kept. Other categories are ignored.
            threshold: The lowest score to keep.
        """
        height, width = frame.shape[:2]
        detections = []
        for x0, y0, x1, y1 in (tile for grid in grids for tile in tiles(height, width, grid)):
            for detection in self._detect(frame[y0:y1, x0:x1], threshold):
                left, top, right, bottom = detection.box  # in 0..1 of the tile
                is_cut_off = (
                    (left < EDGE and x0 > 0)
                    or (top < EDGE and y0 > 0)
                    or (right > 1 - EDGE and x1 < width)
                    or (bottom > 1 - EDGE and y1 < height)
                )
                if not is_cut_off:
                    w, h = x1 - x0, y1 - y0
                    box = (x0 + left * w, y0 + top * h, x0 + right * w, y0 + bottom * h)
                    detections.append(TeacherDetection(detection.category, detection.score, box))
        by_group = ([d for d in detections if d.category in group] for group in groups)
        return [best for group in by_group for best in suppress_duplicates(group)]

    def _detect(self, tile: Image, threshold: float) -> Iterator[TeacherDetection]:
        """Yield the objects on a tile, with boxes in 0..1 of it."""
        side = int(self._input["shape"][1])
        shrink = tile.shape[0] > side
        resized = cv2.resize(tile, (side, side), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
        self._network.set_tensor(self._input["index"], resized[None])
        self._network.invoke()
        boxes, categories, scores, _ = (self._network.get_tensor(index)[0] for index in self._outputs)
        for (y0, x0, y1, x1), category, score in zip(np.clip(boxes, 0, 1).tolist(), categories, scores, strict=True):
            if score >= threshold and x1 > x0 and y1 > y0:
                yield TeacherDetection(int(category), float(score), (x0, y0, x1, y1))


def tiles(height: int, width: int, grid: Grid) -> Iterator[tuple[int, int, int, int]]:
    """Yield the tiles of a frame row by row, as x0, y0, x1, y1.

    Neighbours share `OVERLAP` of their sides, and together the tiles cover the frame.
    """
    columns, rows = grid
    w = width / (columns - (columns - 1) * OVERLAP)
    h = height / (rows - (rows - 1) * OVERLAP)
    for row in range(rows):
        for column in range(columns):
            x, y = column * w * (1 - OVERLAP), row * h * (1 - OVERLAP)
            yield int(x), int(y), min(width, round(x + w)), min(height, round(y + h))


def suppress_duplicates(detections: list[TeacherDetection]) -> list[TeacherDetection]:
    """Run non-maximum suppression, which also removes boxes that lie inside a box of a higher score."""
    kept: list[TeacherDetection] = []
    for candidate in sorted(detections, key=lambda d: -d.score):
        if all(_differ(candidate.box, other.box) for other in kept):
            kept.append(candidate)
    return kept


def _differ(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    """Return whether two boxes belong to different objects."""
    a, b = np.array(first), np.array(second)
    shared = _area(np.concatenate([np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])]))
    union = _area(a) + _area(b) - shared
    return bool(shared < DUPLICATE_IOU * union and shared < DUPLICATE_OVERLAP * min(_area(a), _area(b)))


def _area(box: npt.NDArray[np.float64]) -> float:
    return float(np.prod(np.maximum(box[2:] - box[:2], 0)))
