"""The graphs that move features, against the networks in torch that they replace."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from keywarp.engines.backends.warping import insert_plugin, simplify
from keywarp.engines.manifest import map_names
from keywarp.engines.parity import fix_shapes
from keywarp.export import Graph, round_weights, to_onnx
from keywarp.export.flow_template import flow_template
from keywarp.export.graphs import FlatFlow, FlatWarp
from keywarp.importing.motion_graphs import SHIPPED, flow_graph, warp_graph
from keywarp.networks import FeatureMap, Warp, pretrained_flow

MAPS = (
    (FeatureMap(5, 16),),
    (FeatureMap(4, 4), FeatureMap(3, 8)),
    (FeatureMap(2, 32), FeatureMap(6, 8), FeatureMap(3, 16)),
    (FeatureMap(1, 64),),
)
SIZES = ((96, 128, 2), (97, 131, 1), (33, 250, 1))  # height and width in pixels, batch
Arrays = dict[str, NDArray[np.float32]]


def run_onnxruntime(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in model.graph.output]
    return dict(zip(names, session.run(names, inputs), strict=True))


def run_openvino(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    core = ov.Core()
    core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = core.compile_model(core.read_model(model.SerializeToString()), "CPU")(inputs)
    return {value.name: np.array(results[value.name]) for value in model.graph.output}


def torch_graph(module: nn.Module, inputs: Sequence[str], outputs: Sequence[str], arrays: Arrays) -> onnx.ModelProto:
    example = tuple(torch.from_numpy(arrays[name]) for name in inputs)
    return to_onnx(Graph("exported.onnx", module, tuple(inputs), tuple(outputs), example))


def feeds_of_warp(maps: Sequence[FeatureMap], height: int, width: int, batch: int) -> Arrays:
    random = np.random.default_rng(height)
    finest = min(m.stride for m in maps)
    arrays = {"flow": 4 * random.standard_normal((batch, 2, -(-height // finest), -(-width // finest)))}
    for prefix in ("features", "scale"):
        for name, m in zip(map_names(prefix, len(maps)), maps, strict=True):
            arrays[name] = random.standard_normal((batch, m.channels, -(-height // m.stride), -(-width // m.stride)))
    return {name: value.astype(np.float32) for name, value in arrays.items()}


def feeds_of_flow(height: int, width: int, batch: int) -> Arrays:
    random = np.random.default_rng(width)
    half = (batch, 3, -(-height // 2), -(-width // 2))
    current = random.uniform(-110, 110, half).astype(np.float32)
    return {"current": current, "key": np.roll(current, 3, axis=3)}


@pytest.mark.parametrize("maps", MAPS, ids=str)
def test_warp_is_the_one_that_torch_exports(maps: tuple[FeatureMap, ...]) -> None:
    built = warp_graph(maps)
    inputs, outputs = ([v.name for v in values] for values in (built.graph.input, built.graph.output))
    exported = torch_graph(FlatWarp(Warp(maps)), inputs, outputs, feeds_of_warp(maps, *SIZES[0]))
    for size in SIZES:
        feeds = feeds_of_warp(maps, *size)
        expected = run_onnxruntime(exported, feeds)
        for found in (run_onnxruntime(built, feeds), run_openvino(built, feeds)):
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, atol=2e-5 * np.abs(value).max())


@pytest.mark.parametrize("maps", MAPS, ids=str)
def test_flow_network_is_the_pretrained_one_that_torch_exports(maps: tuple[FeatureMap, ...]) -> None:
    network = pretrained_flow(maps)
    round_weights(network)
    built = flow_graph(maps)
    outputs = [value.name for value in built.graph.output]
    assert outputs == ["flow", *map_names("scale", len(maps))]
    exported = torch_graph(FlatFlow(network), ("current", "key"), outputs, feeds_of_flow(*SIZES[0]))
    for size in SIZES:
        feeds = feeds_of_flow(*size)
        expected = run_onnxruntime(exported, feeds)
        found = run_onnxruntime(built, feeds)
        assert all(np.array_equal(found[name], value) for name, value in expected.items())
    found = run_openvino(built, feeds)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-3 * np.abs(value).max())


def test_scale_fields_are_one_and_have_the_maps_shapes() -> None:
    maps = (FeatureMap(7, 8), FeatureMap(9, 32))
    found = run_onnxruntime(flow_graph(maps), feeds_of_flow(97, 131, 1))
    assert [found[name].shape for name in ("scale_0", "scale_1")] == [(1, 7, 13, 17), (1, 9, 4, 5)]
    assert all((found[name] == 1).all() for name in ("scale_0", "scale_1"))


@pytest.mark.parametrize("opset", [16, 18, 19])
def test_graphs_are_the_same_in_every_opset_of_bundles(opset: int) -> None:
    maps = (FeatureMap(2, 4), FeatureMap(3, 16))
    for build, feeds in ((warp_graph, feeds_of_warp(maps, 97, 131, 1)), (flow_graph, feeds_of_flow(97, 131, 1))):
        found, expected = run_onnxruntime(build(maps, opset), feeds), run_onnxruntime(build(maps), feeds)
        assert all(np.array_equal(found[name], value) for name, value in expected.items())


def test_flow_at_stride_2_is_that_of_stride_4_enlarged() -> None:
    fine, coarse = (run_onnxruntime(flow_graph([FeatureMap(1, s)]), feeds_of_flow(97, 131, 1))["flow"] for s in (2, 4))
    assert fine.shape == (1, 2, 49, 66)
    pooled = fine[..., :48, :].reshape(1, 2, 24, 2, 33, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(pooled / 2, coarse[..., :24, :], atol=0.3)


def test_shipped_flow_network_is_that_of_the_shipped_weights() -> None:
    shipped, fresh = onnx.load(SHIPPED), flow_template()
    weights: Any = [{t.name: t.raw_data for t in model.graph.initializer} for model in (shipped, fresh)]
    assert weights[0] == weights[1], "the weights changed: run `make flow-graph`"
    feeds = feeds_of_flow(64, 96, 1)
    found, expected = run_onnxruntime(shipped, feeds), run_onnxruntime(fresh, feeds)
    assert all(np.array_equal(found[name], value) for name, value in expected.items()), "run `make flow-graph`"


@pytest.mark.parametrize(("stride", "height", "width"), [(14, 196, 224), (12, 144, 240), (24, 144, 240)])
def test_flow_at_strides_of_patches_is_the_flow_in_other_cells(stride: int, height: int, width: int) -> None:
    feeds = feeds_of_flow(height, width, 1)
    found = run_onnxruntime(flow_graph([FeatureMap(2, stride)]), feeds)
    assert found["flow"].shape == (1, 2, height // stride, width // stride)
    assert found["scale"].shape == (1, 2, height // stride, width // stride)
    usual = run_onnxruntime(flow_graph([FeatureMap(2, 8)]), feeds)["flow"]
    np.testing.assert_allclose(stride * found["flow"].mean(axis=(2, 3)), 8 * usual.mean(axis=(2, 3)), atol=0.3)


def test_flow_on_whole_images_serves_odd_strides() -> None:
    feeds = feeds_of_flow(196, 224, 1)  # whole images of 98 x 112
    found = run_onnxruntime(flow_graph([FeatureMap(2, 7), FeatureMap(3, 14)], downscale=1), feeds)
    assert [found[name].shape for name in ("flow", "scale_0", "scale_1")] == [
        (1, 2, 14, 16),
        (1, 2, 14, 16),
        (1, 3, 7, 8),
    ]
    expected = run_onnxruntime(flow_graph([FeatureMap(2, 14), FeatureMap(3, 28)]), feeds)
    np.testing.assert_array_equal(found["flow"], expected["flow"])
    with pytest.raises(ValueError, match="multiples of 2"):
        flow_graph([FeatureMap(2, 7)])


def test_warp_is_one_that_the_tensorrt_plugin_replaces() -> None:
    maps = (FeatureMap(4, 4), FeatureMap(3, 8))
    shapes = {name: value.shape for name, value in feeds_of_warp(maps, 96, 128, 1).items()}
    static = onnx.shape_inference.infer_shapes(fix_shapes(warp_graph(maps), shapes))
    assert insert_plugin(simplify(static))[1] == len(maps)


@pytest.mark.parametrize("strides", [(8, 24), (16, 12)])
def test_strides_that_one_flow_cannot_serve_are_refused(strides: tuple[int, ...]) -> None:
    maps = [FeatureMap(1, stride) for stride in strides]
    for graph in (warp_graph, flow_graph):
        with pytest.raises(ValueError, match="powers of 2 times the finest one"):
            graph(maps)
