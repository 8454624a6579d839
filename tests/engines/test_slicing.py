"""Slices of a key frame's graph give what the whole graph gives."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from keywarp.engines import AVAILABLE, BackendName, Bundle, Engine, Precision, load_bundle, open_backend, slicing
from keywarp.engines.backends import Backend, DeviceTensor
from keywarp.engines.backends.interface import Tensor
from keywarp.engines.backends.onnxruntime import OnnxRuntimeBackend
from keywarp.engines.fusion import FRAME, FusedGraph, GraphStyle, fuse_key
from keywarp.engines.programs import compile_graphs
from keywarp.engines.slicing import slice_graph
from tests.engines.test_passes import parse
from tests.tiny_bundle import tiny_bundle

SIZE = 96, 160
MODELS = Path("models")
NETWORK = """
    <ir_version: 8, opset_import: ["" : 17]>
    key (uint8[1, 3, 8, 12] frame) => (float[96, 12] features, float[1, 5, 8, 12] scores)
    <float[32, 3, 3, 3] first, float[32, 32, 3, 3] second, float16[256, 32, 3, 3] half, float[256] bias,
     float[12, 256, 1, 1] reduction, float[5, 12, 1, 1] head,
     int64[3] planes = {1, 12, 96}, int64[2] cells = {96, 12}> {
        image = Cast <to = 1> (frame)
        a = Conv <pads = [1, 1, 1, 1]> (image, first)
        b = Relu (a)
        c = Conv <pads = [1, 1, 1, 1]> (b, second)
        d = Relu (c)
        large = Cast <to = 1> (half)
        e = Conv <pads = [1, 1, 1, 1]> (d, large, bias)
        f = Conv (e, reduction)
        scored = Conv (f, head)
        rows = Reshape (f, planes)
        moved = Transpose <perm = [0, 2, 1]> (rows)
        flat = Reshape (moved, cells)
        features = Identity (flat)
        scores = Identity (scored)
    }"""


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slicing, "SMALLEST", 1.0)


def host(tensor: Tensor) -> np.ndarray:
    """Return the values of a tensor."""
    value = tensor.value if isinstance(tensor, DeviceTensor) else tensor
    return np.array(value.numpy() if hasattr(value, "numpy") else getattr(value, "data", value), np.float32)


def network() -> FusedGraph:
    return FusedGraph(parse(NETWORK), frozenset({"features"}))


def layers(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "Conv" for node in model.graph.node)


@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize(
    ("model", "precision"),
    [("street", "fp32"), ("street", "int8"), ("street", "auto"), ("street-detect", "fp32"), ("street-detect", "auto")],
)
def test_slices_give_what_the_whole_graph_gives(backend: BackendName, precision: Precision, model: str) -> None:
    """Their order of sums differs in fp32 only; floats between slices have the precision of the backend."""
    opened = open_backend(backend, precision)
    expected, found = whole_and_sliced(opened, load_bundle(MODELS / model))
    tolerance = 1e-4 if opened.precision == "fp32" else 0.0
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() <= tolerance * np.abs(values).max(), name


@pytest.mark.parametrize("backend", AVAILABLE)
def test_slices_of_a_network_that_is_partly_in_int8_are_as_near_to_fp32_as_the_whole(backend: BackendName) -> None:
    """The last bits of its layers in floats decide how those in int8 round."""
    bundle = load_bundle(MODELS / "street-detect")
    exact, _ = whole_and_sliced(open_backend(backend, "fp32"), bundle)
    whole, found = whole_and_sliced(open_backend(backend, "int8"), bundle)
    for name, values in exact.items():
        assert np.std(found[name] - values) < 1.05 * np.std(whole[name] - values), name


def whole_and_sliced(backend: Backend, bundle: Bundle) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the outputs of a bundle's key graph for noise, and those of its slices."""
    graph = fuse_key(bundle.in_precision(backend.precision), *SIZE, backend.style)
    parts = slice_graph(graph, 5, backend.style)
    assert len(parts) == 5 + 1
    frame = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)
    whole = {
        name: host(found) for name, found in backend.compile(graph.model, graph.resident).run({FRAME: frame}).items()
    }
    tensors: dict[str, Tensor] = {FRAME: frame}
    for part in parts:
        found = backend.compile(part.model, part.resident).run(
            {value.name: tensors[value.name] for value in part.model.graph.input}
        )
        tensors |= {name: value if name in part.resident else np.array(value) for name, value in found.items()}
    return whole, {name: host(tensors[name]) for name in whole}


def test_the_largest_convolution_is_divided_and_the_head_is_a_slice_of_its_own() -> None:
    parts = slice_graph(network(), 4, GraphStyle(channels_last=True))
    assert [layers(part.model) for part in parts] == [2, 1, 1, 2, 1]
    assert [[value.name for value in part.model.graph.output] for part in parts[-2:]] == [["features"], ["scores"]]


def test_slices_hold_each_weight_once() -> None:
    weights = sum(constant.ByteSize() for constant in network().model.graph.initializer)
    held = sum(c.ByteSize() for part in slice_graph(network(), 4) for c in part.model.graph.initializer)
    assert weights <= held < 1.05 * weights


def test_the_whole_pass_gives_the_result_and_the_features() -> None:
    backend = open_backend("onnxruntime")
    frame = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 12), dtype=np.uint8)
    [whole, sliced] = (
        compile_graphs(backend, {"key": network()}, lambda: None, lanes=2, slices=slices)  # type: ignore[arg-type, return-value]
        for slices in (1, 3)
    )
    for programs in (sliced.whole, *sliced.lanes):
        found, expected = programs.run_key({FRAME: frame}), whole.whole.run_key({FRAME: frame})
        assert found.keys() == expected.keys() == {"features", "scores"}
        for name, tensor in expected.items():
            np.testing.assert_allclose(host(found[name]), host(tensor), rtol=1e-4, atol=1e-4)


def test_slices_are_not_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = fuse_key(load_bundle(MODELS / "street"), 272, 640)
    assert len(slice_graph(graph, 8)) == 8 + 1
    monkeypatch.undo()
    assert len(slice_graph(graph, 8)) == 5 + 1


def test_a_graph_that_cannot_be_cut_stays_whole() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> key (float[1, 3] frame) => (float[1, 3] features) '
        "{ features = Relu (frame) }"
    )
    [part] = slice_graph(FusedGraph(model, frozenset({"features"})), 4, GraphStyle(inner_type=TensorProto.BFLOAT16))
    assert [node.op_type for node in part.model.graph.node] == ["Relu"]


def test_a_gpu_computes_a_key_frame_in_one_slice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    assert Engine(bundle, "onnxruntime", slices=3).slices == 3
    monkeypatch.setattr(OnnxRuntimeBackend, "name", "onnxruntime-cuda")
    assert Engine(bundle, "onnxruntime", slices=3).slices == 1
