"""A graph with the plugin, computed by Eq. 1 to 3 in plain numpy, gives the same results as the bundle's graph."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from keywarp.engines import Bundle, load_bundle
from keywarp.engines.backends.half import to_half
from keywarp.engines.backends.warping import WARP, insert_plugin, simplify
from keywarp.engines.fusion import FusedGraph, fuse_key, fuse_motion, fuse_propagate, fuse_warp
from keywarp.engines.parity import fix_shapes
from keywarp.export import Graph, to_onnx
from keywarp.export.graphs import FlatWarp
from keywarp.networks import FeatureMap, Warp
from tests.tiny_bundle import HEADER, tiny_bundle
from tests.tiny_bundle import WARP as TINY_WARP

SHIPPED = Path(__file__).parents[2] / "models" / "street"
Array = NDArray[np.float32]


class KeywarpWarp(OpRun):
    """The plugin, written as in Eq. 1 to 3."""

    op_domain = ""

    def _run(self, features: Array, flow: Array, scale: Array | None = None) -> tuple[Array]:
        _, _, height, width = features.shape
        warped = np.zeros_like(features)
        for row in range(height):
            for column in range(width):
                x, y = column + flow[0, 0, row, column], row + flow[0, 1, row, column]
                for qy in (int(np.floor(y)), int(np.floor(y)) + 1):
                    for qx in (int(np.floor(x)), int(np.floor(x)) + 1):
                        if 0 <= qx < width and 0 <= qy < height:
                            weight = max(0, 1 - abs(qx - x)) * max(0, 1 - abs(qy - y))
                            warped[0, :, row, column] += weight * features[0, :, qy, qx]
        return (warped * scale if scale is not None else warped,)


def run(model: onnx.ModelProto, inputs: dict[str, Array]) -> list[Array]:
    results: list[Array] = ReferenceEvaluator(model, new_ops=[KeywarpWarp]).run(None, inputs)  # type: ignore[assignment]
    return results


def warps(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == WARP]


def tiny_warp(text: str = TINY_WARP) -> onnx.ModelProto:
    return fix_shapes(
        onnx.parser.parse_model(HEADER + text),
        {"features": (1, 4, 5, 8), "flow": (1, 2, 5, 8), "scale": (1, 4, 5, 8)},
    )


def values(*shapes: tuple[int, ...]) -> list[Array]:
    random = np.random.default_rng(1)
    return [random.normal(scale=2, size=shape).astype(np.float32) for shape in shapes]


def fuse_given_warp(bundle: Bundle, height: int, width: int) -> FusedGraph:
    return fuse_warp(bundle, height, width, scale=True, given_scales=True)


@pytest.mark.parametrize("build", [fuse_propagate, fuse_warp, fuse_given_warp])
def test_the_shipped_models_warp_becomes_a_single_node(build: Any) -> None:
    model = build(load_bundle(SHIPPED), 96, 128).model
    rewritten, count = insert_plugin(simplify(model))
    assert count == 1
    [node] = warps(rewritten)
    assert len(node.input) == (2 if build is fuse_warp else 3)  # optical flow has no scale field
    operators = [node.op_type for node in rewritten.graph.node]
    assert not {"GridSample", "Range", "Identity"} & set(operators)
    assert "GridSample" in [node.op_type for node in model.graph.node]  # the caller's graph isn't changed


def test_a_graph_without_a_warp_is_unchanged() -> None:
    graph = simplify(fuse_key(load_bundle(SHIPPED), 96, 128).model)
    rewritten, count = insert_plugin(graph)
    assert (rewritten, count) == (graph, 0)


def test_one_map_equals_the_paper() -> None:
    model = tiny_warp()
    rewritten, count = insert_plugin(simplify(model))
    assert (count, len(rewritten.graph.node)) == (1, 1)
    features, flow, scale = values((1, 4, 5, 8), (1, 2, 5, 8), (1, 4, 5, 8))
    inputs = {"features": features, "flow": flow, "scale": scale}
    [expected] = ort.InferenceSession(model.SerializeToString()).run(None, inputs)
    np.testing.assert_allclose(run(rewritten, inputs)[0], expected, atol=1e-4)


def test_several_maps_take_the_flow_at_their_own_strides() -> None:
    maps = (FeatureMap(3, 8), FeatureMap(5, 16), FeatureMap(2, 32))
    shapes = [(1, 3, 13, 17), (1, 5, 7, 9), (1, 2, 4, 5)]
    names = (*(f"features_{i}" for i in range(3)), "flow", *(f"scale_{i}" for i in range(3)))
    arrays = values(*shapes, (1, 2, 13, 17), *shapes)
    outputs = tuple(f"warped_{i}" for i in range(3))
    graph = Graph("warp.onnx", FlatWarp(Warp(maps)), names, outputs, tuple(torch.from_numpy(a) for a in arrays))
    inputs = dict(zip(names, arrays, strict=True))
    model = to_onnx(graph)
    rewritten, count = insert_plugin(simplify(fix_shapes(model, {name: a.shape for name, a in inputs.items()})))
    assert count == 3
    expected = ort.InferenceSession(model.SerializeToString()).run(None, inputs)
    for found, wanted in zip(run(rewritten, inputs), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("align_corners=1", "align_corners=0"),
        ('"zeros"', '"border"'),
        ('"bilinear"', '"nearest"'),
        ("half = {0.5}", "half = {0.25}"),  # a flow in other units
        ("zero = {0}, int64 one = {1}", "zero = {1}, int64 one = {0}"),  # dx and dy exchanged
        ("x = Add (dx, xs_float)", "x = Sub (dx, xs_float)"),
        ("grid_x = Sub (ratio_x, unit)", "grid_x = Sub (unit, ratio_x)"),
        ("Concat <axis=3> (plane_x, plane_y)", "Concat <axis=3> (plane_y, plane_x)"),
    ],
)
def test_a_grid_sample_that_is_not_a_warp_in_cells_is_kept(old: str, new: str) -> None:
    assert old in TINY_WARP
    rewritten, count = insert_plugin(simplify(tiny_warp(TINY_WARP.replace(old, new))))
    assert count == 0
    assert [node.op_type for node in rewritten.graph.node].count("GridSample") == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("warped = Mul (sampled, scale)", "warped = Sub (sampled, scale)"),
        ("warped = Mul (sampled, scale)", "warped = Mul (sampled, half)"),
        ("warped = Mul (sampled, scale)", "product = Mul (sampled, scale) warped = Add (product, sampled)"),
    ],
)
def test_an_operation_after_the_sampling_is_replaced_only_if_it_applies_the_scale_field(old: str, new: str) -> None:
    model = tiny_warp(TINY_WARP.replace(old, new))
    rewritten, count = insert_plugin(simplify(model))
    assert count == 1
    assert [len(node.input) for node in warps(rewritten)] == [2]
    features, flow, scale = values((1, 4, 5, 8), (1, 2, 5, 8), (1, 4, 5, 8))
    inputs = {"features": features, "flow": flow, "scale": scale}
    [expected] = ort.InferenceSession(model.SerializeToString()).run(None, inputs)
    np.testing.assert_allclose(run(rewritten, inputs)[0], expected, atol=1e-4)


def test_fp16_keeps_the_coordinates_of_a_grid_sample_exact() -> None:
    """At cell 2000 neighbouring fp16 numbers are one cell apart, and half a cell of flow would be lost."""
    shape = (1, 1, 2, 2048)
    model = fix_shapes(
        onnx.parser.parse_model(HEADER + TINY_WARP), {"features": shape, "flow": (1, 2, 2, 2048), "scale": shape}
    )
    half = to_half(simplify(model), frozenset())
    onnx.checker.check_model(half, full_check=True)
    features = np.tile(np.array([0, 1], np.float16), shape[3]).reshape(shape)
    flow = np.zeros((1, 2, 2, 2048), np.float16)
    flow[:, 0] = 0.5
    inputs = {"features": features, "flow": flow, "scale": np.ones(shape, np.float16)}
    [warped] = ort.InferenceSession(half.SerializeToString()).run(None, inputs)
    assert warped.dtype == np.float32  # an output for the host
    np.testing.assert_allclose(warped[..., :-1], 0.5, atol=1e-3)


def test_fp16_graphs_of_fused_bundles_are_valid(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", motion_gain=0.02)
    for build in (fuse_key, fuse_propagate, fuse_motion, fuse_warp, fuse_given_warp):
        fused = build(bundle, 64, 96)
        half = to_half(simplify(fused.model), fused.resident)
        onnx.checker.check_model(half, full_check=True)
        kinds = {v.name: v.type.tensor_type.elem_type for v in (*half.graph.input, *half.graph.output)}
        expected = {"frame": 2, "labels": 2, "current": 2, "key": 2}  # uint8
        expected |= dict.fromkeys({o.name for o in half.graph.output} - fused.resident - {"labels"}, 1)  # float
        assert kinds == {name: expected.get(name, onnx.TensorProto.FLOAT16) for name in kinds}
