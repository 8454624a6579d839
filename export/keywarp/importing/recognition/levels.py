"""Recognise outputs per level, that is one or several maps for each stride: raw heads."""

from dataclasses import replace

from keywarp.importing.model_file import TensorSpec
from keywarp.importing.recognition.anchors import paper_anchors
from keywarp.importing.recognition.coordinates import ANCHORS, are_positive
from keywarp.importing.recognition.evidence import Evidence, tell_sigmoid
from keywarp.importing.recognition.guesses import Guess
from keywarp.importing.result_format import BoxForm, Columns, DetectionLayout, Grid
from keywarp.importing.strides import whole_stride

BINS = (16, 8, 11)  # of distributed distances, per side: YOLOv8 and later, NanoDet


def guess_levels(evidence: Evidence) -> Guess | None:
    """Look for maps (1, channels, h, w) of two sizes or more, which have the same channels for each size."""
    levels = _Levels.of(evidence)
    if levels is None:
        return None
    kinds = sorted(levels.channels)
    if len(kinds) == 1:
        return _joint(levels, kinds[0])
    if len(kinds) == 3 and kinds[:2] == [1, 4]:
        return _with_objectness(levels, kinds[2])
    return _boxes_and_scores(levels) if len(kinds) == 2 else None


class _Levels:
    """Maps that are grouped by their strides."""

    def __init__(self, evidence: Evidence, strides: tuple[int, ...], maps: list[list[TensorSpec]]) -> None:
        self.evidence = evidence
        self.grid = Grid(strides)
        self.channels = [o.shape[1] for o in maps[0]]
        self._maps = maps

    @classmethod
    def of(cls, evidence: Evidence) -> "_Levels | None":
        """Group the maps, or return None if they don't form levels."""
        model = evidence.model
        by_stride: dict[int, list[TensorSpec]] = {}
        for output in evidence.outputs:
            if len(output.shape) != 4 or output.shape[0] != 1 or output.dtype.kind != "f":
                continue
            stride = whole_stride(output.shape[2], output.shape[3], model.height, model.width)
            if stride is not None:
                by_stride.setdefault(stride, []).append(output)
        strides = tuple(sorted(by_stride))
        maps = [by_stride[stride] for stride in strides]
        kinds = {tuple(sorted(o.shape[1] for o in level)) for level in maps}
        return cls(evidence, strides, maps) if len(maps) > 1 and len(kinds) == 1 else None

    def columns(self, channels: int, first: int, count: int, per_cell: int = 1) -> Columns:
        """Return columns of the maps that have `channels` for each box of a cell."""
        names = tuple(next(o.name for o in level if o.shape[1] == channels * per_cell) for level in self._maps)
        return Columns(names, "columns", channels, first, count, per_cell)

    def layout(
        self,
        boxes: Columns,
        form: BoxForm,
        scores: Columns,
        grid: Grid | None = None,
        objectness: Columns | None = None,
    ) -> DetectionLayout:
        """Return the layout of boxes in cells, and of sigmoids."""
        activation = tell_sigmoid(self.evidence.table(scores))
        classes = tuple(range(scores.count))
        return DetectionLayout(boxes, form, "cells", scores, classes, activation, objectness, grid=grid or self.grid)

    @property
    def corners(self) -> Grid:
        """The grid with the cells' centres at their corners, as YOLOX has it."""
        return replace(self.grid, shift=0.0)


def _joint(levels: _Levels, channels: int) -> Guess | None:
    """Interpret one map per level."""
    classes = levels.evidence.known_classes or 80
    for bins in BINS:
        if channels == classes + 4 * bins:
            boxes, scores = levels.columns(channels, 0, 4 * bins), levels.columns(channels, 4 * bins, classes)
            return Guess(
                levels.layout(boxes, "distributions", scores), "YOLOv8 or later, with its outputs per level", iou=0.7
            )
    if channels == classes + 5:
        boxes, objectness = levels.columns(channels, 0, 4), levels.columns(channels, 4, 1)
        layout = levels.layout(boxes, "offsets", levels.columns(channels, 5, classes), levels.corners, objectness)
        return Guess(layout, "YOLOX, with its outputs per level")
    return None


def _with_objectness(levels: _Levels, classes: int) -> Guess:
    """Interpret three maps per level: the box, the objectness or centredness, the scores."""
    boxes, objectness = levels.columns(4, 0, 4), levels.columns(1, 0, 1)
    scores = levels.columns(classes, 0, classes)
    if are_positive(levels.evidence.table(boxes)):
        layout = replace(levels.layout(boxes, "distances", scores, objectness=objectness), geometric=True)
        return Guess(layout, "FCOS, with its outputs per level")
    layout = levels.layout(boxes, "offsets", scores, levels.corners, objectness)
    return Guess(layout, "YOLOX, with its outputs per level")


def _boxes_and_scores(levels: _Levels) -> Guess | None:
    """Interpret two maps per level: boxes and scores."""
    known = levels.evidence.known_classes
    for boxes, scores in (levels.channels, levels.channels[::-1]):
        if boxes == 4 * ANCHORS and scores % ANCHORS == 0 and known in (None, scores // ANCHORS):
            classes = scores // ANCHORS
            grid = replace(levels.grid, anchors=paper_anchors(levels.grid))
            layout = levels.layout(
                levels.columns(4, 0, 4, ANCHORS), "deltas", levels.columns(classes, 0, classes, ANCHORS), grid
            )
            return Guess(layout, "RetinaNet, with its outputs per level and the paper's anchors")
    for boxes, scores in (levels.channels, levels.channels[::-1]):
        if known not in (None, scores):
            continue
        if boxes == 4:
            layout = levels.layout(levels.columns(4, 0, 4), "distances", levels.columns(scores, 0, scores))
            return Guess(layout, "a detector without anchors, with its outputs per level")
        if boxes in [4 * bins for bins in BINS]:
            layout = levels.layout(levels.columns(boxes, 0, boxes), "distributions", levels.columns(scores, 0, scores))
            return Guess(layout, "a detector with distributed distances, per level")
    return None
