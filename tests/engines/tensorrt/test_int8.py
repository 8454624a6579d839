"""Graphs in int8 for TensorRT."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from keywarp.engines.backends.ort import ort
from keywarp.engines.backends.signed import to_signed
from keywarp.engines.backends.tensorrt.builder import PlanBuilder, Target
from keywarp.engines.backends.tensorrt.library import open_library
from keywarp.engines.fusion import fuse_key
from tests.quantization.networks import images, layered_bundle, with_int8


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, feed)[0]
    return found


def test_signed_activations_give_nearly_the_same(tmp_path: Path) -> None:
    bundle = with_int8(layered_bundle(tmp_path / "layered"))
    plain, quantized = bundle.graph("features.onnx"), bundle.in_precision("int8").graph("features.onnx")
    signed = to_signed(quantized)
    onnx.checker.check_model(signed)
    kinds = {i.data_type for i in signed.graph.initializer}
    assert onnx.TensorProto.UINT8 not in kinds
    assert onnx.TensorProto.INT32 not in kinds  # biases
    points = [numpy_helper.to_array(i) for i in signed.graph.initializer if i.name.endswith("zero_point")]
    assert points
    assert not any(point.any() for point in points)
    assert "Relu" in {node.op_type for node in signed.graph.node}  # which ranges from 0 on replaced
    for feed in images(3):
        expected = run(plain, feed)
        assert np.abs(run(signed, feed) - expected).max() < 0.03 * np.abs(expected).max()


def test_a_graph_in_fp32_stays_as_it_is(tmp_path: Path) -> None:
    model = layered_bundle(tmp_path / "layered").graph("features.onnx")
    assert to_signed(model).graph.node == model.graph.node


@pytest.mark.gpu_check
def test_tensorrt_reads_int8(tmp_path: Path) -> None:
    graph = fuse_key(with_int8(layered_bundle(tmp_path / "layered")).in_precision("int8"), 64, 96)
    plan, _ = PlanBuilder(open_library(), Target((8, 6)), "fp16").plan(graph.model, graph.resident)
    assert plan.content
