"""Passes over fused graphs leave out work, and no result changes."""

from collections import Counter

import numpy as np
import onnx
import pytest

from keywarp.engines import open_backend
from keywarp.engines.passes import apply_passes

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'
HEAD = (
    HEADER
    + """
    head (float[1, 3, 4, 5] image) => (float[1, 4, 5, 2] first, float[1, 3, 4, 5] second)
    <float[2, 3, 1, 1] one, float16[3, 3, 1, 1] half, int64[2] sizes = {2, 3}> {
        a = Conv (image, one)
        other = Cast <to = 1> (half)
        b = Conv (image, other)
        joined = Concat <axis = 1> (a, b)
        same = Identity (joined)
        x, y = Split <axis = 1> (same, sizes)
        first = Transpose <perm = [0, 2, 3, 1]> (x)
        second = Identity (y)
    }"""
)
WARP = (
    HEADER
    + """
    warp (float[1, 3, 4, 5] features, float[1, 4, 5, 2] places) => (float[1, 3, 4, 5] warped)
    <float[1] one = {1}, int64[4] shape = {1, 3, 4, 5}> {
        ones = Expand (one, shape)
        scale = Identity (ones)
        sampled = GridSample <align_corners = 1> (features, places)
        product = Mul (sampled, scale)
        warped = Relu (product)
    }"""
)


def parse(text: str) -> onnx.ModelProto:
    """Parse a graph, and give its weights random values."""
    model = onnx.parser.parse_model(text)
    random = np.random.default_rng(0)
    for weight in model.graph.value_info:
        shape = [d.dim_value for d in weight.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(weight.type.tensor_type.elem_type)
        values = random.normal(size=shape).astype(dtype)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, weight.name))
    return model


def run(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    inputs = {
        value.name: random.uniform(-1, 1, [d.dim_value for d in value.type.tensor_type.shape.dim]).astype(np.float32)
        for value in model.graph.input
    }
    return {name: np.asarray(found) for name, found in open_backend("onnxruntime").compile(model).run(inputs).items()}


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize(
    ("text", "gone"),
    [pytest.param(HEAD, {"Concat", "Split"}, id="split"), pytest.param(WARP, {"Mul", "Expand"}, id="scale")],
)
def test_the_work_is_gone_and_the_results_are_the_same(text: str, gone: set[str]) -> None:
    model = parse(text)
    before = run(model)
    assert gone <= set(operators(model))
    apply_passes(model.graph)
    onnx.checker.check_model(model, full_check=True)
    assert not gone & set(operators(model))
    after = run(model)
    assert before.keys() == after.keys()
    for name, wanted in before.items():
        np.testing.assert_array_equal(after[name], wanted)


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        pytest.param(HEAD, "sizes = {2, 3}", "sizes = {3, 2}", id="other sizes"),
        pytest.param(HEAD, "Identity (joined)", "Relu (joined)", id="something between"),
        pytest.param(WARP, "one = {1}", "one = {2}", id="a scale of two"),
    ],
)
def test_what_changes_results_stays(text: str, old: str, new: str) -> None:
    model = parse(text.replace(old, new))
    before = operators(model)
    apply_passes(model.graph)
    assert operators(model) == before
