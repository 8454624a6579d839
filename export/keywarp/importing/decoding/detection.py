"""Nodes that turn a detector's outputs into boxes in pixels and probabilities of classes.

Rows stay in their order and number, so that results on different features can be compared row by row.
"""

import math
from typing import Literal

import numpy as np
import onnx

from keywarp.importing.decoding.node_builder import NodeBuilder
from keywarp.importing.result_format import RELATIVE, Columns, DetectionLayout

MAX_INDEX = 2**31 - 1  # the end of an axis
MAX_LOG_RATIO = math.log(1000 / 16)  # of dw and dh, which keeps exp finite
# From the columns of a form to x1, y1, x2, y2: a matrix (4, 4) to multiply rows with
_MATRICES = {
    "yxyx": ((0, 1, 0, 0), (1, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0)),
    "xywh": ((1, 0, 1, 0), (0, 1, 0, 1), (0, 0, 1, 0), (0, 0, 0, 1)),
    "cxcywh": ((1, 0, 1, 0), (0, 1, 0, 1), (-0.5, 0, 0.5, 0), (0, -0.5, 0, 0.5)),
}


def append_detection(head: onnx.ModelProto, layout: DetectionLayout, height: int, width: int) -> onnx.ModelProto:
    """Return the head with the outputs `boxes` (1, n, 4), x1 y1 x2 y2 in pixels, and `scores` (1, n, 1 + classes).

    With masks and keypoints, it has their outputs, too (docs/bundle.md).

    Args:
        head: The graph from features to the file's own outputs.
        layout: What they mean.
        height: The height of the network's input in pixels.
        width: The width of the network's input in pixels.
    """
    draft = _Draft(head, layout, height, width)
    outputs: dict[str, tuple[str, list[int | str]]] = {
        "boxes": (draft.boxes(), [1, "n", 4]),
        "scores": (draft.scores(), [1, "n", len(layout.class_columns) + 1]),
    }
    if layout.masks and layout.masks.coefficients:
        outputs["mask_coefficients"] = draft.coefficients(), [1, "n", layout.masks.coefficients.count]
        outputs["mask_prototypes"] = draft.prototypes(), [1, layout.masks.coefficients.count, "h", "w"]
    elif layout.masks:
        outputs["masks"] = draft.masks(), [1, "n", "h", "w"]
    if layout.keypoints:
        outputs["keypoints"] = draft.keypoints(), [1, "n", layout.keypoints.count, 3]
    return draft.builder.finish(**outputs)


class _Draft:
    def __init__(self, head: onnx.ModelProto, layout: DetectionLayout, height: int, width: int) -> None:
        self.builder = NodeBuilder(head)
        self._layout = layout
        self._size = (height, width)
        self._types = {value.name: value.type.tensor_type.elem_type for value in head.graph.output}
        self._tables: dict[Columns, str] = {}

    def boxes(self) -> str:
        """Add the boxes as rows, (1, n, 4)."""
        layout, builder = self._layout, self.builder
        if layout.form in RELATIVE:
            return self._relative_boxes()
        rows = self._rows(layout.boxes)
        height, width = self._size
        scale = np.ones(4)
        if layout.units == "normalised":
            scale = np.array([width, height, width, height])
        if layout.form in _MATRICES:
            matrix = (np.array(_MATRICES[layout.form]) * scale).astype(np.float32)
            return builder.node("MatMul", rows, builder.constant(matrix))
        if layout.units == "normalised":
            return builder.node("Mul", rows, builder.constant(scale.astype(np.float32)))
        return rows

    def _relative_boxes(self) -> str:
        """Add boxes that are relative to the cells of a grid or to anchors."""
        layout, builder = self._layout, self.builder
        assert layout.grid is not None
        rows = self._rows(layout.boxes)
        centres, strides, anchors = layout.grid.rows(*self._size)
        centre = builder.constant(centres[np.newaxis])
        unit = builder.constant(strides[np.newaxis])
        if layout.form in ("offsets", "deltas"):
            shift, size = builder.split(rows, [2, 2], axis=2)
            if layout.form == "deltas":
                unit = builder.constant(anchors[np.newaxis])
                size = builder.node("Min", size, builder.constant(MAX_LOG_RATIO))
            centre = builder.node("Add", builder.node("Mul", shift, unit), centre)
            half = builder.node("Mul", builder.node("Exp", size), builder.node("Mul", unit, builder.constant(0.5)))
            low, high = builder.node("Sub", centre, half), builder.node("Add", centre, half)
            return builder.concat([low, high], axis=2)
        if layout.form == "distributions":
            rows = self._expectation(rows, layout.boxes.count // 4)
        if layout.units == "cells":
            rows = builder.node("Mul", rows, unit)
        elif layout.units == "normalised":
            height, width = self._size
            rows = builder.node("Mul", rows, builder.constant([float(n) for n in (width, height, width, height)]))
        before, after = builder.split(rows, [2, 2], axis=2)
        return builder.concat([builder.node("Sub", centre, before), builder.node("Add", centre, after)], axis=2)

    def _expectation(self, rows: str, bins: int) -> str:
        """Add the mean of distributions over 0, 1, ..., bins - 1: (1, n, 4 bins) -> (1, n, 4)."""
        builder = self.builder
        chances = builder.node("Softmax", builder.reshape(rows, 1, -1, 4, bins), axis=3)
        places = builder.constant(np.arange(bins, dtype=np.float32).reshape(bins, 1))
        return builder.reshape(builder.node("MatMul", chances, places), 1, -1, 4)

    def scores(self) -> str:
        """Add the scores with the background in front, (1, n, 1 + classes)."""
        layout, builder = self._layout, self.builder
        if layout.labels is not None:
            return self._one_hot(layout.labels)
        axis = self._axis(layout.scores)
        scores = builder.activate(self._take(layout.scores), layout.activation, axis)
        if layout.objectness is not None:
            objectness = builder.activate(self._take(layout.objectness), layout.activation, axis)
            scores = builder.node("Mul", scores, objectness)
        if layout.geometric:
            scores = builder.node("Sqrt", scores)
        columns = layout.class_columns
        if columns != tuple(range(layout.scores.count)):
            if columns == tuple(range(columns[0], columns[0] + len(columns))):
                scores = builder.part(scores, columns[0], len(columns), axis)
            else:
                scores = builder.node("Gather", scores, builder.constant(list(columns)), axis=axis)
        return self._after_background(self._as_rows(scores, layout.scores))

    def _one_hot(self, labels: Columns) -> str:
        """Add scores (1, n, 1 + classes) that are zero except for the class of the label."""
        layout, builder = self._layout, self.builder
        scores = builder.activate(self._rows(layout.scores), layout.activation, axis=2)
        columns = builder.constant(np.array(layout.class_columns, np.float32).reshape(1, 1, -1))
        found = builder.node("Round", self._rows(labels))
        equal = builder.node("Cast", builder.node("Equal", found, columns), to=onnx.TensorProto.FLOAT)
        return self._after_background(builder.node("Mul", equal, scores))

    def coefficients(self) -> str:
        """Add the coefficients of prototypes as rows, (1, n, k)."""
        assert self._layout.masks is not None
        assert self._layout.masks.coefficients is not None
        return self._rows(self._layout.masks.coefficients)

    def prototypes(self) -> str:
        """Add the prototypes, (1, k, h, w)."""
        assert self._layout.masks is not None
        return self._as_float(self._layout.masks.tensor)

    def masks(self) -> str:
        """Add a mask per row, (1, n, h, w), above 0 inside of the object."""
        layout, builder = self._layout.masks, self.builder
        assert layout is not None
        maps = self._as_float(layout.before or layout.tensor)
        size = builder.node("Slice", builder.node("Shape", maps), *map(builder.constant, ([-2], [MAX_INDEX], [0])))
        rows = builder.node("Reshape", maps, builder.concat([builder.constant([1, -1]), size], axis=0))
        return builder.node("Sub", rows, builder.constant(0.5)) if layout.probabilities else rows

    def keypoints(self) -> str:
        """Add the keypoints, (1, n, K, 3): x, y in pixels of the input, and confidence."""
        layout, builder = self._layout.keypoints, self.builder
        assert layout is not None
        points = builder.reshape(self._rows(layout.points), 1, -1, layout.count, layout.numbers)
        places = builder.part(points, 0, 2, axis=3)
        if layout.scores is not None:
            scores = builder.node("Sigmoid", self._rows(layout.scores))
            certain = builder.reshape(scores, 1, -1, layout.count, 1)
        elif layout.numbers == 3:
            certain = builder.part(points, 2, 1, axis=3)
        else:
            nothing = builder.node("Mul", builder.part(points, 0, 1, axis=3), builder.constant(0.0))
            certain = builder.node("Add", nothing, builder.constant(1.0))
        if self._layout.units == "normalised":
            height, width = self._size
            places = builder.node("Mul", places, builder.constant([float(width), float(height)]))
        return builder.concat([places, certain], axis=3)

    def _after_background(self, scores: str) -> str:
        """Put a column of zeros for the background in front of scores (1, n, classes)."""
        pads = self.builder.constant([0, 0, 1, 0, 0, 0])
        return self.builder.node("Pad", scores, pads)

    def _axis(self, columns: Columns) -> Literal[1, 2]:
        """Return the axis of the columns."""
        return 2 if columns.arrangement == "rows" or columns.per_cell > 1 else 1

    def _rows(self, columns: Columns) -> str:
        """Add these columns as rows, (1, n, count)."""
        return self._as_rows(self._take(columns), columns)

    def _as_rows(self, tensor: str, columns: Columns) -> str:
        if self._axis(columns) == 2:
            return tensor
        return self.builder.node("Transpose", tensor, perm=[0, 2, 1])

    def _take(self, columns: Columns) -> str:
        """Add these columns, (1, n, count) or (1, count, n)."""
        table = self._table(columns)
        if columns.count == columns.width:
            return table
        return self.builder.part(table, columns.first, columns.count, self._axis(columns))

    def _table(self, columns: Columns) -> str:
        """Add the table of which these are columns, once: (1, n, width) or (1, width, n)."""
        key = Columns(columns.tensors, columns.arrangement, columns.width, per_cell=columns.per_cell)
        if key not in self._tables:
            parts = [self._part(tensor, columns) for tensor in columns.tensors]
            self._tables[key] = self.builder.concat(parts, 3 - self._axis(columns))
        return self._tables[key]

    def _part(self, tensor: str, columns: Columns) -> str:
        builder = self.builder
        tensor = self._as_float(tensor)
        if columns.arrangement == "rows":
            return builder.reshape(tensor, 1, -1, columns.width)
        if columns.per_cell == 1:
            return builder.reshape(tensor, 1, columns.width, -1)
        apart = builder.reshape(tensor, 1, columns.per_cell, columns.width, -1)
        return builder.reshape(builder.node("Transpose", apart, perm=[0, 3, 1, 2]), 1, -1, columns.width)

    def _as_float(self, tensor: str) -> str:
        if self._types.get(tensor) == onnx.TensorProto.FLOAT:
            return tensor
        return self.builder.node("Cast", tensor, to=onnx.TensorProto.FLOAT)
