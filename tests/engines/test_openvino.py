"""OpenVINO compiles what it can't fuse, says in one line what it can't compile, and samples maps where it should."""

import numpy as np
import onnx
import pytest
from openvino import Core

from keywarp.engines import BackendError, open_backend
from keywarp.engines.backends.interface import DeviceTensor
from keywarp.engines.backends.openvino_warp import gather_rows

# As in Mask2Former's file: the values have a dimension more than what they are weighted by.
ATTENTION = """
    <ir_version: 8, opset_import: ["" : 17]>
    attention (float[4, 50, 16] query, float[4, 16, 50] key, float[1, 4, 50, 16] value) => (float[1, 4, 50, 16] found) {
        products = MatMul (query, key)
        weights = Softmax <axis = -1> (products)
        found = MatMul (weights, value)
    }"""
FOREIGN = """
    <ir_version: 8, opset_import: ["" : 17, "elsewhere" : 1]>
    foreign (float[4] image) => (float[4] found) {
        found = elsewhere.Strange (image)
    }"""
WARP = """
    <ir_version: 8, opset_import: ["" : 17]>
    warp (float[1, 1, 2, 160] features, float[1, 2, 160, 2] places) => (float[1, 1, 2, 160] found)
    <float[1, 1, 1, 1] weight = {1}> {
        doubled = Add (places, places)
        same = Sub (doubled, places)
        warped = GridSample <align_corners = 1> (features, same)
        found = Conv (warped, weight)
    }"""
HAS_BF16 = "BF16" in Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_attention_that_cannot_be_fused_is_compiled() -> None:
    random = np.random.default_rng(0)
    query, key, value = (random.normal(size=s).astype(np.float32) for s in ((4, 50, 16), (4, 16, 50), (1, 4, 50, 16)))
    program = open_backend("openvino", "fp32").compile(onnx.parser.parse_model(ATTENTION))
    found = program.run({"query": query, "key": key, "value": value})["found"]
    assert not isinstance(found, DeviceTensor)
    weights = np.exp(query @ key)
    np.testing.assert_allclose(found, weights / weights.sum(-1, keepdims=True) @ value, atol=1e-5)


def test_an_error_is_one_line() -> None:
    with pytest.raises(BackendError, match=r"OpenVINO can't compile foreign: .*Strange") as caught:
        open_backend("openvino", "fp32").compile(onnx.parser.parse_model(FOREIGN))
    assert "\n" not in str(caught.value)
    assert "Exception from" not in str(caught.value)


@pytest.mark.skipif(not HAS_BF16, reason="the processor has no bf16 arithmetic")
def test_maps_are_sampled_at_exact_places_in_bf16() -> None:
    """A step between two cells shows where the map was sampled."""
    features = np.zeros((1, 1, 2, 160), np.float32)
    features[..., 151:] = 1
    x = np.full((1, 2, 160), 150.25, np.float32) / (159 / 2) - 1
    places = np.stack((x, np.zeros_like(x)), axis=-1)
    program = open_backend("openvino", "bf16").compile(onnx.parser.parse_model(WARP))
    found = np.asarray(program.run({"features": features, "places": places})["found"])
    assert np.allclose(found, 0.25, atol=0.005)


@pytest.mark.parametrize("points", ["the map's own size", "another size"])
def test_gathered_rows_are_what_grid_sample_gives(points: str) -> None:
    """Also at the map's last cells, between them and the border, and far outside."""
    random = np.random.default_rng(0)
    rows, columns = (5, 9) if points == "the map's own size" else (4, 7)
    features = random.normal(size=(1, 6, 5, 9)).astype(np.float32)
    places = random.uniform(-1.5, 1.5, size=(1, rows, columns, 2)).astype(np.float32)
    places[0, 0, :6] = [(-1, -1), (1, 1), (1.01, 0), (0, -1.2), (-3, 3), (1 - 1e-7, 1)]
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        warp (float[1, 6, 5, 9] features, float[1, {rows}, {columns}, 2] places)
            => (float[1, 6, {rows}, {columns}] found) {{
            found = GridSample <align_corners = 1> (features, places)
        }}"""
    )
    inputs = {"features": features, "places": places}
    gathered, sampled = (
        np.asarray(open_backend(backend, "fp32").compile(model).run(inputs)["found"])
        for backend in ("openvino", "onnxruntime")
    )
    np.testing.assert_allclose(gathered, sampled, atol=1e-5)
    network = Core().read_model(model.SerializeToString())
    gather_rows(network)
    assert "GridSample" not in {node.get_type_name() for node in network.get_ops()}


def test_rows_of_channels_are_gathered_without_a_copy() -> None:
    """Maps that come as rows are neither turned around and back nor converted."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        warp (float[45, 6] rows, float[1, 5, 9, 2] places) => (float[1, 6, 5, 9] found)
        <int64[4] shape = {1, 6, 5, 9}> {
            planes = Transpose <perm = [1, 0]> (rows)
            map = Reshape (planes, shape)
            same = Identity (map)
            found = GridSample <align_corners = 1> (same, places)
        }"""
    )
    network = Core().read_model(model.SerializeToString())
    gather_rows(network)
    nodes = network.get_ops()
    assert [node.get_type_name() for node in nodes].count("Transpose") == 1  # of what was gathered
    bag = next(node for node in nodes if node.get_type_name() == "EmbeddingBagPackedSum")
    assert bag.input_value(0).get_node().get_type_name() == "Parameter"  # with nothing between
    random = np.random.default_rng(0)
    inputs = {
        "rows": random.normal(size=(45, 6)).astype(np.float32),
        "places": random.uniform(-1.2, 1.2, size=(1, 5, 9, 2)).astype(np.float32),
    }
    gathered, sampled = (
        np.asarray(open_backend(backend, "fp32").compile(model).run(inputs)["found"])
        for backend in ("openvino", "onnxruntime")
    )
    np.testing.assert_allclose(gathered, sampled, atol=1e-5)


@pytest.mark.parametrize(
    "attributes",
    ["align_corners = 0", 'align_corners = 1, mode = "nearest"', 'align_corners = 1, padding_mode = "border"'],
)
def test_other_samples_stay_as_they_are(attributes: str) -> None:
    network = Core().read_model(
        onnx.parser.parse_model(WARP.replace("align_corners = 1", attributes)).SerializeToString()
    )
    places = gather_rows(network)
    sample = next(node for node in network.get_ops() if node.get_type_name() == "GridSample")
    assert places == [sample.input_value(1)]
