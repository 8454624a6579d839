from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from keywarp.engines import load_bundle
from keywarp.export import ExportError, check_parity, export_bundle, graphs_of, round_weights, to_onnx
from keywarp.networks import (
    IMAGE_MEAN,
    Checkpoint,
    DeepFeatureFlow,
    ModelCard,
    NetworkOptions,
    SegmentationNetwork,
    build_network,
    save_checkpoint,
)
from keywarp.networks.flownet import ExpandingFlowNetwork
from tests.command_line import keywarp

OPTIONS = NetworkOptions(classes=3, blocks=(1, 1, 1, 0), channels=8, flow="flownet_inception")
CARD = ModelCard(
    name="tiny",
    version="0.1.0",
    license="Apache-2.0",
    classes=(("background", (0, 0, 0)), ("disc", (255, 0, 0)), ("ring", (0, 255, 0))),
    short_side=64,
    long_side=96,
    multiple=16,
    key_interval=5,
    recipe="tiny.toml",
    data="made",
    accuracy={"mean IoU, clip": {"per_frame": 0.5}},
)


def moving_network() -> DeepFeatureFlow[Tensor]:
    """Random networks with a visible flow and a scale field that isn't one."""
    torch.manual_seed(0)
    network = build_network(OPTIONS).eval()
    assert isinstance(network.flow, ExpandingFlowNetwork)
    torch.nn.init.normal_(network.flow.flow.weight, std=0.1)
    torch.nn.init.normal_(next(network.flow.scales.parameters()), std=0.1)
    return network


def score(network: DeepFeatureFlow[Tensor]) -> Tensor:
    """The weight of the head's convolution."""
    recognition = network.recognition
    assert isinstance(recognition, SegmentationNetwork)
    return next(recognition.task_head.parameters())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = Checkpoint(OPTIONS, CARD, moving_network().state_dict())
    return export_bundle(checkpoint, tmp_path_factory.mktemp("bundle")).path


def run(bundle: Path, graph: str, **inputs: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(bundle / f"{graph}.onnx", providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def test_the_manifest_says_what_the_checkpoint_is(bundle: Path) -> None:
    manifest = load_bundle(bundle).manifest
    assert (manifest.name, manifest.key_interval, manifest.opset) == ("tiny", 5, 17)
    assert manifest.classes[1].color == (255, 0, 0)
    assert manifest.image.mean == IMAGE_MEAN
    assert (manifest.features[0].stride, manifest.features[0].channels) == (16, 8)
    assert manifest.provenance.accuracy == CARD.accuracy


@pytest.mark.parametrize(
    ("file", "inputs", "outputs"),
    [
        ("features.onnx", ["image"], ["features"]),
        ("flow.onnx", ["current", "key"], ["flow", "scale"]),
        ("warp.onnx", ["features", "flow", "scale"], ["warped"]),
        ("head.onnx", ["features"], ["scores"]),
    ],
)
def test_graphs_have_the_contracts_names_and_dynamic_sizes(
    bundle: Path, file: str, inputs: list[str], outputs: list[str]
) -> None:
    graph = onnx.load(bundle / file).graph
    assert [value.name for value in graph.input] == inputs
    assert [value.name for value in graph.output] == outputs
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert all(dims[axis].dim_param for axis in (0, 2, 3))


def test_weights_are_stored_in_16_bits(bundle: Path) -> None:
    for file in ("features.onnx", "flow.onnx", "head.onnx"):
        weights = [i for i in onnx.load(bundle / file).graph.initializer if len(i.dims) > 1]
        assert weights
        assert {i.data_type for i in weights} == {onnx.TensorProto.FLOAT16}


def test_the_graphs_chained_are_the_network(bundle: Path) -> None:
    network = moving_network()
    round_weights(network)
    current, key = (torch.randn(1, 3, 80, 112) * 60 for _ in range(2))
    half = [torch.nn.functional.avg_pool2d(image, 2).numpy() for image in (current, key)]
    [features] = run(bundle, "features", image=key.numpy())
    flow, scale = run(bundle, "flow", current=half[0], key=half[1])
    [warped] = run(bundle, "warp", features=features, flow=flow, scale=scale)
    [scores] = run(bundle, "head", features=warped)
    with torch.inference_mode():
        expected = torch.softmax(network(current, key, torch.tensor([True])), dim=1)
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-4)


def test_parity_notices_a_changed_weight() -> None:
    network = moving_network()
    round_weights(network)
    graphs = {graph.file: to_onnx(graph) for graph in graphs_of(network)}
    assert check_parity(network, graphs) < 1e-4
    with torch.no_grad():
        score(network)[0, 0] += 0.1
    with pytest.raises(ExportError, match=r"head\.onnx, scores .* differ"):
        check_parity(network, graphs)


def test_weights_beyond_16_bits_are_refused() -> None:
    network = moving_network()
    with torch.no_grad():
        score(network)[0, 0] = 1e6
    with pytest.raises(ExportError, match=r"task_head\.score\.weight"):
        round_weights(network)


def test_the_command_writes_a_bundle_or_says_in_a_sentence_why_not(tmp_path: Path) -> None:
    save_checkpoint(Checkpoint(OPTIONS, CARD, moving_network().state_dict()), tmp_path / "c.pt")
    done = keywarp("export", tmp_path / "c.pt", "--out", tmp_path / "tiny")
    assert done.returncode == 0, done.stderr
    assert load_bundle(tmp_path / "tiny").name == "tiny"
    failed = keywarp("export", tmp_path / "none.pt", "--out", tmp_path / "x")
    assert failed.returncode == 1
    assert failed.stderr.startswith("keywarp: can't read the checkpoint")
    assert not (tmp_path / "x").exists()
