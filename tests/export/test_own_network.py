"""Networks that Keywarp doesn't have, cut and exported, against PyTorch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights, lraspp_mobilenet_v3_large

from keywarp.engines import AVAILABLE, BackendName, Bundle, Engine, FrameKind, MotionName, OpticalFlow, StreamSession
from keywarp.engines.manifest import DenseDetection, RegionDetection
from keywarp.export import ExportError, export_network, round_weights
from keywarp.networks import CutNetwork, DeepFeatureFlow, FlowNetInception, ModelCard, Warp, cut
from keywarp.networks.flownet import ExpandingFlowNetwork
from tests.shift import Shift

Image = NDArray[np.uint8]
HEIGHT, WIDTH, SHIFT = 128, 192, 16  # pixels
CARD = ModelCard(
    name="lraspp",
    version="0.1.0",
    license="BSD-3-Clause",
    classes=LRASPP_MobileNet_V3_Large_Weights.DEFAULT.meta["categories"],
    short_side=HEIGHT,
    long_side=WIDTH,
)


@pytest.fixture(params=AVAILABLE)
def backend(request: pytest.FixtureRequest) -> BackendName:
    name: BackendName = request.param
    return name


# Two maps of different strides


@pytest.fixture(scope="module")
def lraspp(tmp_path_factory: pytest.TempPathFactory) -> tuple[CutNetwork, Bundle]:
    """The network as its bundle has it; its flow network sees everything move to the right by `SHIFT`."""
    torch.manual_seed(0)
    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = 1  # one batch makes them norms, or the signal would fade away
    with torch.no_grad():
        model.train()(torch.randn(2, 3, HEIGHT, WIDTH))
    network = cut(
        model,
        features=lambda model, image: model.backbone(image),
        head=lambda model, low, high: model.classifier({"low": low, "high": high}),
    )
    flow = FlowNetInception(network.maps)
    with torch.no_grad():
        flow.flow.weight.zero_()
        assert flow.flow.bias is not None
        flow.flow.bias.copy_(torch.tensor([-SHIFT / flow.stride / flow.cells_per_unit, 0]))
    bundle = export_network(DeepFeatureFlow(network, flow), CARD, tmp_path_factory.mktemp("own"))
    round_weights(network)
    return network, bundle


def texture(seed: int = 0) -> Image:
    """Smooth coloured noise, wide enough to move."""
    coarse = np.random.default_rng(seed).integers(0, 256, (1, 3, HEIGHT // 8, WIDTH // 8 + SHIFT)).astype(np.float32)
    fine = functional.interpolate(torch.from_numpy(coarse), scale_factor=8, mode="bicubic")
    return fine[0].clamp(0, 255).byte().permute(1, 2, 0).numpy()


def moved_labels(network: CutNetwork, frame: Image, *, to_border: bool = False) -> Image:
    """What PyTorch says of the key frame's features, moved by whole cells.

    What comes from outside is zero, or with `to_border` taken from the border of the finest map.
    """
    image = torch.from_numpy(frame).permute(2, 0, 1)[None] - torch.tensor(network.mean).view(1, 3, 1, 1)
    with torch.inference_mode():
        maps = network.features(image / torch.tensor(network.std).view(1, 3, 1, 1))
        cells = [SHIFT // m.stride for m in network.maps]
        moved = [functional.pad(x, (n, -n)) for x, n in zip(maps, cells, strict=True)]
        if to_border:
            finest = max(maps, key=lambda x: x.shape[-1])
            flow = torch.zeros(1, 2, *finest.shape[-2:])
            flow[:, 0] = -torch.arange(finest.shape[-1]).clamp(max=max(cells))
            moved = list(Warp(network.maps)(maps, flow, [torch.ones_like(x) for x in maps]))
        [probabilities] = network.predict(network.head(*moved))
        enlarged = functional.interpolate(probabilities, (HEIGHT, WIDTH), mode="bilinear", align_corners=False)
    return enlarged[0].argmax(dim=0).byte().numpy()


@pytest.mark.parametrize("motion", ["network", Shift(SHIFT)], ids=["network", "flow"])
def test_maps_of_several_strides_move_together(
    lraspp: tuple[CutNetwork, Bundle], backend: BackendName, motion: MotionName | OpticalFlow, tmp_path: Path
) -> None:
    network, bundle = lraspp
    session = StreamSession(Engine(bundle, backend, "fp32", cache=tmp_path, motion=motion))
    key = np.ascontiguousarray(texture()[:, :WIDTH])
    still = session.process(key).labels
    result = session.process(np.zeros_like(key))  # nothing of it is seen but its motion, which is made
    expected = moved_labels(network, key, to_border=motion != "network")
    assert result.kind is FrameKind.PROPAGATED
    assert len(np.unique(expected)) > 2
    assert (result.labels == expected).mean() > 0.999
    assert (result.labels == still).mean() < 0.9


def test_optical_flow_moves_what_no_flow_network_was_trained_for(
    lraspp: tuple[CutNetwork, Bundle], tmp_path: Path
) -> None:
    network, bundle = lraspp
    wide = texture()
    key, current = (np.ascontiguousarray(wide[:, x : x + WIDTH]) for x in (SHIFT, 0))
    expected = moved_labels(network, key)[16:-16, 2 * SHIFT : -16]
    agreement: dict[MotionName, float] = {}
    for motion in ("dis", "none"):
        session = StreamSession(Engine(bundle, "onnxruntime", "fp32", cache=tmp_path, motion=motion))
        session.process(key)
        agreement[motion] = (session.process(current).labels[16:-16, 2 * SHIFT : -16] == expected).mean()
    assert agreement["dis"] > 0.95
    assert agreement["none"] < 0.8


def test_the_manifest_describes_the_network(lraspp: tuple[CutNetwork, Bundle]) -> None:
    network, bundle = lraspp
    manifest = bundle.manifest
    assert [(f.name, f.stride, f.channels) for f in manifest.features] == [
        ("features_0", 8, 40),
        ("features_1", 16, 960),
    ]
    assert manifest.segmentation is not None
    assert manifest.segmentation.stride == 8
    assert (manifest.image.mean, manifest.image.std, manifest.image.multiple) == (network.mean, network.std, 32)
    assert [(c.name, c.color) for c in manifest.classes[:3]] == [
        ("__background__", (0, 0, 0)),
        ("aeroplane", (128, 0, 0)),
        ("bicycle", (0, 128, 0)),
    ]
    assert len({c.color for c in manifest.classes}) == 21


# A detector


class Squares(nn.Module):
    """Finds red squares of 16 pixels: the mean colour of every cell is scored, and its box is the cell."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv2d(3, 2, 1)
        with torch.no_grad():
            self.score.weight.copy_(torch.tensor([[0.0, 0, 0], [0.1, -0.1, -0.1]]).view(2, 3, 1, 1))
            self.score.bias.copy_(torch.tensor([5.0, 0]))  # type: ignore[union-attr]  # there is one

    def colors(self, image: Tensor) -> Tensor:
        """The features."""
        return functional.avg_pool2d(image, 16)

    def boxes(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The head."""
        rows, columns = features.shape[-2:]
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        corners = torch.stack((x, y, x + 1, y + 1), dim=-1).reshape(1, -1, 4) * 16.0
        return corners.expand(features.shape[0], -1, -1), self.score(features).flatten(2).transpose(1, 2)


SQUARES = ModelCard(
    "squares", "0.1.0", "Apache-2.0", ("background", ("square", (9, 8, 7))), short_side=64, long_side=96
)


def squares() -> CutNetwork:
    return cut(Squares(), Squares.colors, Squares.boxes, task="detection", mean=(0, 0, 0), std=(1, 1, 1), multiple=16)


def with_flow(network: CutNetwork) -> DeepFeatureFlow[Tensor]:
    return DeepFeatureFlow(network, FlowNetInception(network.maps))


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    settings = DenseDetection(threshold=0.5)
    return export_network(with_flow(squares()), SQUARES, tmp_path_factory.mktemp("squares"), settings)


def test_boxes_move_with_the_features(detector: Bundle, backend: BackendName, tmp_path: Path) -> None:
    session = StreamSession(Engine(detector, backend, "fp32", cache=tmp_path, motion=Shift(32)))
    key = np.full((64, 96, 3), 40, np.uint8)
    key[16:32, 32:48] = (255, 0, 0)
    found = session.process(key).detections
    assert (found.xyxy.tolist(), found.class_id.tolist()) == ([[32, 16, 48, 32]], [1])
    assert found.confidence[0] > 0.99
    assert session.process(np.zeros_like(key)).detections.xyxy.tolist() == [[64, 16, 80, 32]]


def test_the_given_colours_and_settings_are_in_the_manifest(detector: Bundle) -> None:
    assert detector.manifest.classes[1].color == (9, 8, 7)
    assert detector.manifest.detection == DenseDetection(threshold=0.5)


# What export does with a network


def test_the_users_weights_are_left_as_they_were(tmp_path: Path) -> None:
    model = Squares()
    # functions may also use the model that they see, not the one that they are given
    network = cut(model, lambda _, image: model.colors(image), lambda _, x: model.boxes(x), task="detection")
    exact = 0.1000001
    with torch.no_grad():
        model.score.weight[1, 0] = exact
    whole = with_flow(network)
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    export_network(whole, SQUARES, tmp_path)
    assert network.model is model
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.state_dict().items())


def test_the_users_weights_are_restored_when_the_export_fails(tmp_path: Path) -> None:
    model = Squares()
    whole = with_flow(cut(model, Squares.colors, Squares.boxes, task="detection", multiple=16))
    before = model.score.weight.clone()
    assert isinstance(whole.flow, ExpandingFlowNetwork)
    with torch.no_grad():
        whole.flow.flow.weight[0, 0] = 1e6  # rounded after the others
    with pytest.raises(ExportError, match=r"flow\.flow\.weight has values that aren't finite 16-bit floats"):
        export_network(whole, SQUARES, tmp_path / "none")
    assert torch.equal(model.score.weight, before)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (replace(SQUARES, classes=("a", "b", "c")), r"the head has 2 classes .* the card names 3"),
        (replace(SQUARES, name="My squares"), "^the model card can't be turned into a manifest: name: "),
        (replace(SQUARES, version="1"), "manifest: version: "),
        (replace(SQUARES, long_side=32), "manifest: value_error: .*long_side 32 is below short_side 64"),
        (replace(SQUARES, multiple=17), "manifest: multiple: "),  # and of 16, so of 272
    ],
    ids=["classes", "name", "version", "sides", "multiple"],
)
def test_a_model_card_that_does_not_fit_is_refused(card: ModelCard, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        export_network(with_flow(squares()), card, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_settings_of_another_kind_of_detector_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="RegionDetection doesn't fit a head that returns boxes, scores"):
        export_network(with_flow(squares()), SQUARES, tmp_path, RegionDetection())


def test_an_operation_that_onnx_lacks_is_refused_in_one_sentence(tmp_path: Path) -> None:
    def features(model: Squares, image: Tensor) -> Tensor:
        colors: Tensor = torch.special.i0(model.colors(image))
        return colors

    network = cut(Squares(), features, Squares.boxes, task="detection", multiple=16)
    with pytest.raises(ExportError, match=r"^features\.onnx can't be written as ONNX, opset 17: .*i0"):
        export_network(with_flow(network), SQUARES, tmp_path / "none")


def test_buffers_keep_their_precision(tmp_path: Path) -> None:
    model = Squares()
    model.register_buffer("offset", torch.full((1, 3, 1, 1), 0.1000001))

    def features(model: Squares, image: Tensor) -> Tensor:
        return model.colors(image) + model.get_buffer("offset")

    network = cut(model, features, Squares.boxes, task="detection", multiple=16)
    bundle = export_network(with_flow(network), SQUARES, tmp_path)
    [offset] = [i for i in bundle.graph("features.onnx").graph.initializer if list(i.dims) == [1, 3, 1, 1]]
    np.testing.assert_array_equal(numpy_helper.to_array(offset), model.get_buffer("offset").numpy())


def test_weights_that_are_too_small_for_16_bits_are_stored_whole(tmp_path: Path) -> None:
    model = Squares()
    with torch.no_grad():
        model.score.weight.mul_(1e-6)

    def boxes(model: Squares, features: Tensor) -> tuple[Tensor, Tensor]:
        return model.boxes(features * 1e6)

    network = cut(model, Squares.colors, boxes, task="detection", multiple=16)
    bundle = export_network(with_flow(network), SQUARES, tmp_path)
    stored = [numpy_helper.to_array(i) for i in bundle.graph("head.onnx").graph.initializer]
    assert any(np.array_equal(array, model.score.weight.detach().numpy()) for array in stored)
