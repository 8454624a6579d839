"""Quantising one graph: which layers and tensors become 8 bits wide."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from keywarp.quantization.graph import GraphQuantizer, fold_weights
from keywarp.quantization.placement import place
from tests.quantization.networks import images, layered_bundle
from tests.tiny_bundle import HEADER


def quantizer(tmp_path: Path, **options: bool) -> GraphQuantizer:
    bundle = layered_bundle(tmp_path / "layered", **options)
    return GraphQuantizer("features.onnx", bundle.graph("features.onnx"), images())


def layer(graph: GraphQuantizer, output: str) -> str:
    return str(next(node.name for node in graph.model.graph.node if output in node.output))


def read_by(model: onnx.ModelProto, name: str) -> str:
    """Return the operator that makes what a layer reads, or "input"."""
    [node] = [node for node in model.graph.node if node.name == name]
    made = [other.op_type for other in model.graph.node if node.input[0] in other.output]
    return made[0] if made else "input"


def test_all_layers_are_quantised_with_weights_in_8_bits(tmp_path: Path) -> None:
    graph = quantizer(tmp_path)
    quantized = graph.quantize(graph.layers)
    onnx.checker.check_model(quantized)
    assert len(graph.layers) == 5
    assert {read_by(quantized, name) for name in graph.layers} == {"DequantizeLinear"}
    kernels = [i for i in quantized.graph.initializer if len(i.dims) == 4]
    assert len(kernels) == 5
    assert {i.data_type for i in kernels} == {onnx.TensorProto.INT8}
    assert graph.error(graph.layers, images(2)) < 1e-3


def test_weights_behind_casts_are_quantised_too(tmp_path: Path) -> None:
    graph = quantizer(tmp_path, half=True)
    assert len(graph.layers) == 5
    assert graph.error(graph.layers, images(2)) < 1e-3


def test_folding_changes_no_result(tmp_path: Path) -> None:
    model = layered_bundle(tmp_path / "layered", half=True).graph("features.onnx")
    folded = fold_weights(model)
    assert "Cast" in {node.op_type for node in model.graph.node}
    assert "Cast" not in {node.op_type for node in folded.graph.node}
    kept = {i.name: numpy_helper.to_array(i) for i in folded.graph.initializer}
    assert {value.dtype for value in kept.values()} == {np.dtype(np.float32)}


def test_a_layer_in_fp32_reads_and_gives_exact_tensors(tmp_path: Path) -> None:
    graph = quantizer(tmp_path)
    wide = layer(graph, "wide")
    quantized = graph.quantize([name for name in graph.layers if name != wide])
    onnx.checker.check_model(quantized)
    assert read_by(quantized, wide) == "Relu"  # which reads the layer before it as it is, too
    relu = next(node for node in quantized.graph.node if node.op_type == "Relu")
    assert read_by(quantized, relu.name) == "Conv"
    assert read_by(quantized, layer(graph, "narrow")) == "DequantizeLinear"


def test_results_of_the_graph_are_not_rounded_to_8_bits(tmp_path: Path) -> None:
    graph = quantizer(tmp_path)
    [last] = [node for node in graph.quantize(graph.layers).graph.node if "features" in node.output]
    assert last.op_type == "Conv"


def test_an_outlier_spoils_the_layer_that_reads_it(tmp_path: Path) -> None:
    graph = quantizer(tmp_path, outlier=True)
    errors = {name: graph.error([name], images(2)) for name in graph.layers}
    worst = max(errors, key=lambda name: errors[name])
    assert worst == layer(graph, "narrow")
    assert errors[worst] > 0.1
    assert graph.error([name for name in graph.layers if name != worst], images(2)) < 0.01


COORDINATES = """
head (float[N,3,H,W] features) => (float[N,3,H,W] boxes)
<float[1] offset = {1000.0}>
{
  moved = Conv (features, weight)
  boxes = Add (moved, offset)
}
"""
RESIDUAL = """
block (float[N,3,H,W] features) => (float[N,3,H,W] out)
{
  first = Conv (features, weight)
  left = Relu (first)
  second = Conv (left, weight)
  sum = Add (second, left)
  right = Relu (sum)
  out = Conv (right, weight)
}
"""


@pytest.mark.parametrize(("text", "inside"), [(COORDINATES, set()), (RESIDUAL, {"Relu", "Add"})])
def test_sums_run_in_int8_between_layers_but_not_in_coordinates(text: str, inside: set[str]) -> None:
    model = parser.parse_model(HEADER + text)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "weight"))
    model = fold_weights(model)
    layers = [node.name for node in model.graph.node if node.op_type == "Conv"]
    between = place(model, layers, layers).between
    assert {node.op_type for node in model.graph.node if node.name in between} == inside


def test_biases_take_back_what_rounding_shifts() -> None:
    random = np.random.default_rng(0)
    model = parser.parse_model(
        HEADER
        + """
net (float[N,3,H,W] image) => (float[N,8,H,W] features)
{
  positive = Relu (image)
  first = Conv (positive, first_weight)
  middle = Relu (first)
  features = Conv (middle, last_weight, last_bias)
}
"""
    )
    # Large positive and small weights side by side: the small ones are rounded away, all in one direction.
    first = np.concatenate([np.full((8, 1, 1, 1), 10.0), np.full((8, 2, 1, 1), 0.035)], axis=1)
    for name, value in (
        ("first_weight", first),
        ("last_weight", random.uniform(0.1, 1, (8, 8, 1, 1))),
        ("last_bias", np.zeros(8)),
    ):
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    feeds = [{"image": random.uniform(0, 100, (1, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    graph = GraphQuantizer("features.onnx", model, feeds)
    corrected = graph.error(graph.layers, feeds)
    graph._shifts = {}
    assert corrected < 0.5 * graph.error(graph.layers, feeds)
