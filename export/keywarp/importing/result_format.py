"""What the outputs of a model file mean, and what a user may say about it.

A layout says where in the outputs the boxes and scores are and how they are written. It holds data only:
`keywarp.importing.formats` recognises it, and `keywarp.importing.decoders` makes nodes of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.manifest import DenseDetection, MaskKind

Task = Literal["detection", "segmentation", "dense"]
BoxForm = Literal["xyxy", "yxyx", "xywh", "cxcywh", "distances", "distributions", "offsets", "deltas"]
Units = Literal["pixels", "normalised", "cells"]
Activation = Literal["none", "sigmoid", "softmax"]
Background = Literal["first", "last", "none"]
Array = NDArray[np.float32]

BACKGROUND = "background"
RELATIVE: tuple[BoxForm, ...] = ("distances", "distributions", "offsets", "deltas")  # to cells or anchors


@dataclass(frozen=True)
class Hints:
    """What a user says about the outputs. None leaves it to the guess."""

    task: Task | None = None
    outputs: tuple[str, ...] | None = None  # the outputs to read; all others are ignored
    boxes: BoxForm | None = None
    units: Units | None = None
    activation: Activation | None = None  # that is still to be applied to the scores
    background: Background | None = None  # where the scores' background (or no-object) column is
    class_names: tuple[str, ...] | None = None  # without the background of a detector; see `read_class_names`
    threshold: float | None = None  # lowest score of a reported object, 0..1
    iou: float | None = None  # overlap above which the worse of two objects of one class is removed; 1 for none
    quantity: str | None = None  # what the numbers of a dense map are
    unit: str | None = None  # their unit


@dataclass(frozen=True)
class Columns:
    """Some columns of a table that has a row per box. Several outputs are parts of it, one below the other.

    ===========  ==================================================================================
    `rows`       (1, n, width), (n, width), (1, h, w, width); and (1, n) or (n,) if the width is 1
    `columns`    (1, width, n) or (1, per_cell * width, h, w)
    ===========  ==================================================================================
    """

    tensors: tuple[str, ...]
    arrangement: Literal["rows", "columns"]
    width: int  # columns of the whole table
    first: int = 0  # of the columns that are meant
    count: int = 1
    per_cell: int = 1  # boxes per cell of a map


@dataclass(frozen=True)
class Grid:
    """The cells that a dense detector's rows belong to: the levels one after the other, each row by row."""

    strides: tuple[int, ...]  # pixels per cell
    shift: float = 0.5  # of a cell's centre from its corner, in cells
    anchors: tuple[tuple[tuple[float, float], ...], ...] = ()  # per level: width and height in pixels per box of a cell

    def count(self, height: int, width: int) -> int:
        """Return the number of cells over all levels, for an image of this size in pixels."""
        return sum(-(-height // s) * -(-width // s) for s in self.strides)

    def rows(self, height: int, width: int) -> tuple[Array, Array, Array]:
        """Return the centre (n, 2) in pixels, the stride (n, 1) and the anchor's size (n, 2) in pixels of each row."""
        levels = list(self._levels(height, width))
        centres, strides, sizes = (np.concatenate(parts).astype(np.float32) for parts in zip(*levels, strict=True))
        return centres, strides, sizes

    def _levels(self, height: int, width: int) -> Iterator[tuple[Array, Array, Array]]:
        for number, stride in enumerate(self.strides):
            y, x = np.mgrid[: -(-height // stride), : -(-width // stride)].astype(np.float32).reshape(2, -1)
            anchors = np.array(self.anchors[number] if self.anchors else [(stride, stride)], np.float32)
            centres = (np.stack((x, y), axis=1) + self.shift) * stride
            yield (
                centres.repeat(len(anchors), axis=0),
                np.full((len(centres) * len(anchors), 1), stride, np.float32),
                np.tile(anchors, (len(centres), 1)),
            )


@dataclass(frozen=True)
class MasksLayout:
    """How the objects' masks are written.

    ============  =============================================================================================
    `prototypes`  maps (1, k, h, w) that cover the image, and k columns of the boxes' table to weight them with
    `image`       a map per box that covers the image, (1, n, h, w), (n, 1, h, w) or (n, h, w)
    `box`         maps per box that cover it, which the file pastes into images (n, 1, h, w) as its last step
    ============  =============================================================================================
    """

    kind: MaskKind
    tensor: str  # the output with the maps
    coefficients: Columns | None = None  # of prototypes
    before: str | None = None  # of the kind `box`: the tensor with the maps before they are pasted
    probabilities: bool = False  # from 0 to 1, instead of logits


@dataclass(frozen=True)
class KeypointsLayout:
    """How the objects' keypoints are written: x, y and perhaps a confidence each, in the boxes' units."""

    points: Columns
    numbers: int  # per point, 2 or 3
    scores: Columns | None = None  # logits that replace the confidence

    @property
    def count(self) -> int:
        """The number of points of an object."""
        return self.points.count // self.numbers


@dataclass(frozen=True)
class DetectionLayout:
    """How boxes and scores are written.

    ===============  ============================================================================================
    `xyxy`           x1, y1, x2, y2
    `yxyx`           y1, x1, y2, x2
    `xywh`           x1, y1, width, height
    `cxcywh`         centre's x and y, width, height
    `distances`      from the cell's centre to the left, top, right and bottom side
    `distributions`  the same as logits of 0, 1, 2, ... cells per side
    `offsets`        of the centre from the cell's, and logarithms of width and height
    `deltas`         dx, dy, dw, dh, relative to an anchor (R-CNN, appendix C)
    ===============  ============================================================================================
    """

    boxes: Columns
    form: BoxForm
    units: Units
    scores: Columns
    class_columns: tuple[int, ...]  # for each class but the background: its column of the scores, or its label
    activation: Activation = "none"
    objectness: Columns | None = None  # multiplies the scores; has their activation
    geometric: bool = False  # the product's root is taken
    labels: Columns | None = None  # each row has a score and a label instead of a score per class
    grid: Grid | None = None  # for boxes relative to cells
    selected: bool = False  # the rows are objects already: a set, or what a suppression left
    masks: MasksLayout | None = None
    keypoints: KeypointsLayout | None = None

    @property
    def tensors(self) -> frozenset[str]:
        """The outputs that are read."""
        columns = [self.boxes, self.scores, self.objectness, self.labels]
        columns += [self.keypoints.points, self.keypoints.scores] if self.keypoints else []
        read = frozenset(tensor for part in columns if part is not None for tensor in part.tensors)
        return read | {self.masks.tensor} if self.masks else read


@dataclass(frozen=True)
class SegmentationLayout:
    """How the classes of pixels are written: scores (1, channels, h, w), (1, h, w, channels) or labels (1, h, w).

    Labels are the classes' indices. Scores in one channel are those of the only class besides the background.
    """

    tensor: str
    arrangement: Literal["channels_first", "channels_last", "labels"]
    channels: int
    activation: Activation = "none"
    implied_background: bool = False  # where no class has a score above 0.5; it becomes class 0

    @property
    def tensors(self) -> frozenset[str]:
        """The outputs that are read."""
        return frozenset([self.tensor])


@dataclass(frozen=True)
class MaskSetLayout:
    """Logits of a set of masks and of their classes, of which a segmentation is made (MaskFormer, Mask2Former).

    A pixel's score of a class is the sum over the masks of the mask's probability there times that of its class.
    """

    masks: str  # (1, n, h, w), logits of sigmoids
    classes: str  # (1, n, classes + 1), logits of a softmax with "no object" last
    count: int  # of the classes
    implied_background: bool = False  # where no class has a score above 0.5; it becomes class 0

    @property
    def tensors(self) -> frozenset[str]:
        """The outputs that are read."""
        return frozenset([self.masks, self.classes])


@dataclass(frozen=True)
class DenseLayout:
    """A number per pixel, such as the depth: (h, w), (1, h, w), (1, 1, h, w) or (1, h, w, 1)."""

    tensor: str
    quantity: str = "value"
    unit: str | None = None

    @property
    def tensors(self) -> frozenset[str]:
        """The outputs that are read."""
        return frozenset([self.tensor])


Layout = DetectionLayout | SegmentationLayout | MaskSetLayout | DenseLayout


@dataclass(frozen=True)
class ResultFormat:
    """What the outputs mean."""

    task: Task
    layout: Layout
    class_names: tuple[str, ...]  # as in the manifest; a detector's begin with the background; none of a dense map
    guess: str  # a sentence for people that says what the file looks like
    background: bool = True  # whether class 0 is the background
    later: str = ""  # a sentence that says which part of the result isn't used yet
    detection: DenseDetection | None = None  # the manifest's settings of a detector
