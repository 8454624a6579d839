"""Appended nodes compute what plain numpy does, for any layout, opset and runtime."""

from typing import Any

import numpy as np
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from keywarp.importing.decoders import append_decoder
from keywarp.importing.decoding.node_builder import NodeBuilder
from keywarp.importing.result_format import (
    RELATIVE,
    Activation,
    BoxForm,
    Columns,
    DetectionLayout,
    Grid,
    ResultFormat,
    Units,
)

from .written_outputs import HEIGHT, WIDTH, Array, decode, model_of

GRID = Grid((16, 32))
ROWS = GRID.count(HEIGHT, WIDTH)


def sigmoid(x: Array) -> Array:
    y: Array = 1 / (1 + np.exp(-x))
    return y


def reference(layout: DetectionLayout, outputs: dict[str, Array]) -> tuple[Array, Array]:
    """Decode in numpy: boxes (n, 4) and scores (n, 1 + classes)."""

    def rows(columns: Columns) -> Array:
        parts = []
        for name in columns.tensors:
            value = outputs[name].astype(np.float64)
            if columns.arrangement == "rows":
                parts.append(value.reshape(-1, columns.width))
            else:
                parts.append(value.reshape(columns.width, -1).T)
        return np.concatenate(parts)[:, columns.first : columns.first + columns.count]

    def activated(x: Array) -> Array:
        if layout.activation == "softmax":
            e = np.exp(x - x.max(axis=1, keepdims=True))
            y: Array = e / e.sum(axis=1, keepdims=True)
            return y
        return sigmoid(x) if layout.activation == "sigmoid" else x

    b = rows(layout.boxes)
    size = {"pixels": np.ones(4), "normalised": np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])}.get(layout.units)
    if layout.form in RELATIVE:
        assert layout.grid is not None
        centres, strides, _ = layout.grid.rows(HEIGHT, WIDTH)
        if layout.form == "distributions":
            e = np.exp(b.reshape(len(b), 4, -1))
            b = (e / e.sum(axis=2, keepdims=True) * np.arange(e.shape[2])).sum(axis=2)
        if layout.form in ("offsets", "deltas"):
            centre, half = centres + b[:, :2] * strides, np.exp(b[:, 2:]) * strides / 2
            boxes = np.concatenate((centre - half, centre + half), axis=1)
        else:
            d = b * (strides if size is None else size)
            boxes = np.concatenate((centres - d[:, :2], centres + d[:, 2:]), axis=1)
    else:
        assert size is not None
        x, y, z, w = b.T
        boxes = {
            "xyxy": np.stack((x, y, z, w), 1),
            "yxyx": np.stack((y, x, w, z), 1),
            "xywh": np.stack((x, y, x + z, y + w), 1),
            "cxcywh": np.stack((x - z / 2, y - w / 2, x + z / 2, y + w / 2), 1),
        }[layout.form] * size
    scores = activated(rows(layout.scores))
    if layout.objectness is not None:
        scores = scores * activated(rows(layout.objectness))
        if layout.geometric:
            scores = np.sqrt(scores)
    chosen = scores[:, list(layout.class_columns)]
    return boxes, np.concatenate((np.zeros((len(chosen), 1)), chosen), axis=1)


@st.composite
def written(draw: st.DrawFn) -> tuple[DetectionLayout, dict[str, Array]]:
    """Draw a layout, and outputs of that layout."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    form: BoxForm = draw(st.sampled_from(["xyxy", "yxyx", "xywh", "cxcywh", *RELATIVE]))
    relative = form in RELATIVE
    choices: list[Units] = ["cells"] if form in ("offsets", "deltas") else ["pixels", "normalised"]
    units: Units = draw(st.sampled_from([*choices, "cells"] if relative else choices))
    count = 4 * draw(st.integers(2, 9)) if form == "distributions" else 4
    classes = draw(st.integers(1, 6))
    activation: Activation = draw(st.sampled_from(["none", "sigmoid", "softmax"]))
    objectness = activation != "softmax" and draw(st.booleans())
    arrangement = draw(st.sampled_from(["rows", "columns", "maps"]))
    extra = draw(st.integers(0, 3))
    width = extra + count + int(objectness) + classes
    table = random.normal(0, 1, (ROWS, width)).astype(np.float32)
    if activation == "none":
        table[:, extra + count :] = sigmoid(table[:, extra + count :])
    outputs: dict[str, Array] = {}
    if arrangement == "maps":
        start = 0
        for stride in GRID.strides:
            h, w = -(-HEIGHT // stride), -(-WIDTH // stride)
            part = table[start : start + h * w].T.reshape(1, width, h, w)
            outputs[f"level_{stride}"] = np.ascontiguousarray(part)
            start += h * w
    else:
        outputs["table"] = np.ascontiguousarray(table.T if arrangement == "columns" else table)[None]

    def columns(first: int, number: int) -> Columns:
        return Columns(tuple(outputs), "rows" if arrangement == "rows" else "columns", width, extra + first, number)

    chosen = draw(st.lists(st.integers(0, classes - 1), min_size=1, unique=True).map(sorted))
    layout = DetectionLayout(
        columns(0, count),
        form,
        units,
        columns(count + int(objectness), classes),
        tuple(chosen),
        activation,
        columns(count, 1) if objectness else None,
        geometric=objectness and draw(st.booleans()),
        grid=GRID if relative else None,
    )
    return layout, outputs


def result_of(layout: DetectionLayout) -> ResultFormat:
    return ResultFormat("detection", layout, ("background",), "")


@settings(max_examples=60, deadline=None)
@given(case=written(), opset=st.integers(16, 19))
def test_any_layout_is_decoded_as_in_numpy(case: tuple[DetectionLayout, dict[str, Array]], opset: int) -> None:
    layout, outputs = case
    found = decode(model_of(outputs, opset=opset), result_of(layout))
    boxes, scores = reference(layout, outputs)
    np.testing.assert_allclose(found["boxes"][0], boxes, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found["scores"][0], scores, rtol=1e-4, atol=1e-5)
    assert all(value.dtype == np.float32 for value in found.values())


@settings(max_examples=12, deadline=None)
@given(case=written())
def test_openvino_decodes_the_same(case: tuple[DetectionLayout, dict[str, Array]]) -> None:
    layout, outputs = case
    model = model_of(outputs)
    decoded = append_decoder(model.model, result_of(layout), HEIGHT, WIDTH)
    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(decoded.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    found: Any = compiled({0: np.zeros((1, 3, HEIGHT, WIDTH), np.float32)})
    for value, wanted in zip((found[0], found[1]), reference(layout, outputs), strict=True):
        np.testing.assert_allclose(value[0], wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int64])
def test_outputs_of_other_types_become_float32(kind: type) -> None:
    table: Array = np.arange(30).reshape(1, 5, 6).astype(kind)
    columns = Columns(("table",), "rows", 6, 0, 4)
    scores = Columns(("table",), "rows", 6, 4, 2)
    layout = DetectionLayout(columns, "xyxy", "pixels", scores, (0, 1))
    found = decode(model_of({"table": table}), result_of(layout))
    np.testing.assert_array_equal(found["boxes"], table[..., :4])
    np.testing.assert_array_equal(found["scores"][..., 1:], table[..., 4:])


def test_outputs_that_have_the_engines_names_are_replaced() -> None:
    boxes, scores = np.ones((1, 5, 4), np.float32), np.full((1, 5, 3), 0.5, np.float32)
    layout = DetectionLayout(
        Columns(("scores",), "rows", 4, 0, 4), "xywh", "pixels", Columns(("boxes",), "rows", 3, 0, 3), (0, 2)
    )
    found = decode(model_of({"scores": boxes, "boxes": scores}), result_of(layout))
    assert found["boxes"].shape == (1, 5, 4)
    assert (found["boxes"] == [1, 1, 2, 2]).all()
    assert found["scores"].shape == (1, 5, 3)


def test_parts_that_no_output_needs_are_removed() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "used"], ["result"]),
        helper.make_node("Add", ["x", "unused"], ["aside"]),
    ]
    constants = [numpy_helper.from_array(np.ones(4, np.float32), name) for name in ("used", "unused")]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "result", "aside")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    finished = NodeBuilder(model).finish(scores=("result", [1, 4]))
    assert [i.name for i in finished.graph.initializer] == ["used"]
    assert [n.op_type for n in finished.graph.node] == ["Mul", "Identity"]
    assert len(model.graph.node) == 2
