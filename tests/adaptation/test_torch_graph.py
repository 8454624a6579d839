"""Graphs in PyTorch, against ONNX Runtime and against the networks that they came from."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, parser
from torch import nn
from torch.nn import functional

from keywarp.adaptation import OperatorError, TorchGraph
from keywarp.engines import load_bundle
from keywarp.engines.backends.ort import ort
from keywarp.export import round_weights
from keywarp.export.graphs import Graph, to_onnx
from tests.adaptation.moving import colour_bundle
from tests.tiny_bundle import tiny_bundle

STREET = Path(__file__).parents[2] / "models" / "street"


def run_in_onnx_runtime(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def assert_equal(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> None:
    expected = run_in_onnx_runtime(model, inputs)
    with torch.inference_mode():
        found = TorchGraph(model, "graph")(**{name: torch.from_numpy(x) for name, x in inputs.items()})
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].shape == value.shape
        np.testing.assert_allclose(found[name].numpy(), value, rtol=1e-4, atol=1e-4 * max(1e-6, np.abs(value).max()))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (97, 131)])
def test_the_shipped_flow_network_computes_what_onnx_runtime_does(height: int, width: int) -> None:
    model = load_bundle(STREET).graph("flow.onnx")
    assert_equal(model, {"current": 60 * noise(1, 3, height, width), "key": 60 * noise(1, 3, height, width, seed=1)})


@pytest.mark.parametrize("file", ["features.onnx", "flow.onnx", "warp.onnx", "head.onnx"])
@pytest.mark.parametrize("detection", [False, True])
def test_graphs_made_without_torch_compute_what_onnx_runtime_does(tmp_path: Path, file: str, detection: bool) -> None:
    model = tiny_bundle(tmp_path, detection=detection, flow=(0.6, -1.2)).graph(file)
    inputs = {
        "image": 60 * noise(2, 3, 56, 80),
        "current": 60 * noise(2, 3, 28, 40),
        "key": 60 * noise(2, 3, 28, 40, seed=1),
        "features": noise(2, 3, 4, 5),
        "flow": noise(2, 2, 4, 5),
        "scale": noise(2, 3, 4, 5),
    }
    assert_equal(model, {value.name: inputs[value.name] for value in model.graph.input})


class ManyOperators(nn.Module):
    """Much of what heads consist of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4)
        self.up = nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1)
        self.norm, self.layer_norm = nn.BatchNorm2d(8), nn.LayerNorm(5)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = functional.hardswish(self.norm(self.conv(x)))
        z = functional.relu6(self.grouped(y)) + functional.silu(y)
        pooled = functional.max_pool2d(z, 3, 2, 1, ceil_mode=True), functional.avg_pool2d(z, 3, 2, 1, ceil_mode=True)
        doubled = functional.interpolate(z, scale_factor=2, mode="bilinear", align_corners=False)
        nearest = functional.interpolate(z, scale_factor=2, mode="nearest")
        listed = z.flatten(2).transpose(1, 2)
        scores = torch.softmax(self.layer_norm(functional.gelu(self.linear(listed))), dim=-1)
        steps = torch.cumsum(torch.ones_like(scores), 1) * scores.amax(dim=-1, keepdim=True)
        first, second = torch.split(scores, [2, 3], dim=-1)
        parts = torch.cat((first.clamp(0.1, 0.9), second.exp(), torch.where(steps > 2, steps, -steps)), dim=-1)
        return (*pooled, doubled, nearest, self.up(z), parts, x[:, :, 2:, -4:-1], x.mean(dim=(2, 3), keepdim=True))


def exported(module: nn.Module, *shape: int) -> onnx.ModelProto:
    """The graph of a module from `x` to one or more outputs."""
    example = torch.randn(*shape)
    outputs = module(example)
    names = tuple(f"y{n}" for n in range(len(outputs)))
    return to_onnx(Graph("module.onnx", module, ("x",), names, (example,)))


def test_common_operators_compute_what_onnx_runtime_does() -> None:
    torch.manual_seed(0)
    assert_equal(exported(ManyOperators().eval(), 2, 4, 13, 18), {"x": noise(1, 4, 21, 16)})


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_padding_computes_what_onnx_runtime_does(mode: str) -> None:
    pads = numpy_helper.from_array(np.array([0, 0, 1, 3, 0, 0, 2, 1], np.int64), "pads")
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2, None, None]) for n in ("x", "y")]
    node = helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode)
    graph = helper.make_graph([node], "g", values[:1], values[1:], [pads])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert_equal(model, {"x": noise(1, 2, 5, 7)})


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(4, 2, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.layers(x),)


def test_weights_get_the_gradients_of_the_network() -> None:
    torch.manual_seed(0)
    network = TwoLayers()
    round_weights(network)
    graph, x = TorchGraph(exported(network, 1, 3, 8, 8), "layers"), torch.randn(1, 3, 8, 8)
    graph(x=x)["y0"].square().sum().backward()
    network(x)[0].square().sum().backward()
    found = {name: parameter.grad for name, parameter in graph.named_parameters()}
    assert len(found) == 4
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(found[name.replace(".", "/")], parameter.grad)


def test_equal_weights_that_the_exporter_stored_once_are_trained_apart(tmp_path: Path) -> None:
    model = colour_bundle(tmp_path).graph("flow.onnx")
    assert any(node.op_type == "Identity" for node in model.graph.node)
    graph = TorchGraph(model, "flow")
    image = torch.randn(1, 3, 32, 48)
    outputs = graph(current=60 * image, key=60 * image.flip(0))
    sum(x.square().sum() for x in outputs.values()).backward()
    biases = [p for name, p in graph.named_parameters() if name.endswith("bias")]
    with torch.no_grad():
        for number, bias in enumerate(biases):
            bias.fill_(number / 64)
    written = graph.model()
    stored = {i.name: numpy_helper.to_array(i) for i in written.graph.initializer if i.name.endswith("bias")}
    assert sorted(float(x.flat[0]) for x in stored.values()) == [number / 64 for number in range(len(biases))]
    assert_equal(written, {"current": 60 * noise(1, 3, 32, 48), "key": 60 * noise(1, 3, 32, 48, seed=1)})


def test_changed_weights_come_back_as_16_bits_and_are_what_the_module_has(tmp_path: Path) -> None:
    graph = TorchGraph(colour_bundle(tmp_path).graph("flow.onnx"), "flow")
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.mul_(1.0001)
        next(iter(graph.parameters())).view(-1)[0] = 1e6  # beyond 16 bits
    model = graph.model()
    images = {"current": 60 * noise(1, 3, 64, 96), "key": 60 * noise(1, 3, 64, 96, seed=1)}
    expected = run_in_onnx_runtime(model, images)
    found = graph(**{name: torch.from_numpy(x) for name, x in images.items()})
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].detach().numpy(), value, rtol=1e-4, atol=1e-4 * np.abs(value).max())


def test_unknown_operators_are_named() -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N] x) => (float[N] y) { z = Sin (x) y = Cos (z) }'
    )
    with pytest.raises(OperatorError, match=r"head\.onnx can't be differentiated: it has the operators Cos, Sin"):
        TorchGraph(model, "head.onnx")


def test_unsupported_forms_of_an_operator_are_named() -> None:
    node = helper.make_node("GridSample", ["x", "grid"], ["y"], mode="bicubic")
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "grid", "y")]
    model = helper.make_model(helper.make_graph([node], "g", values[:2], values[2:]))
    with pytest.raises(OperatorError, match="GridSample with mode = 'bicubic' can't be differentiated"):
        TorchGraph(model, "graph")(x=torch.zeros(1, 1, 4, 4), grid=torch.zeros(1, 4, 4, 2))
