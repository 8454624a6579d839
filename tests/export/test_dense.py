"""Export of networks for dense maps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from keywarp.engines import Engine, FixedInterval, StreamSession
from keywarp.engines.manifest import DenseSettings
from keywarp.export import ExportError, export_network, round_weights
from keywarp.networks import CutNetwork, DeepFeatureFlow, FlowNetInception, ModelCard, cut

HEIGHT, WIDTH = 64, 96  # pixels


class Depth(nn.Module):
    """Features of stride 8, and a head that gives a number for each two pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 16, 8, 8)
        self.last = nn.Conv2d(16, 1, 3, padding=1)

    def features(self, image: Tensor) -> Tensor:
        return functional.relu(self.body(image))

    def head(self, features: Tensor) -> Tensor:
        return functional.softplus(self.last(functional.interpolate(features, scale_factor=4.0, mode="bilinear")))


def card(*classes: str) -> ModelCard:
    return ModelCard("depth", "0.1.0", "MIT", classes, HEIGHT, WIDTH)


@pytest.fixture
def network() -> CutNetwork:
    torch.manual_seed(0)
    return cut(Depth(), Depth.features, Depth.head, task="dense")


def test_the_bundle_gives_what_the_network_does(network: CutNetwork, tmp_path: Path) -> None:
    whole = DeepFeatureFlow(network, FlowNetInception(network.maps, 0.1))
    bundle = export_network(whole, card(), tmp_path / "depth", quantity="depth", unit="m")
    assert bundle.manifest.dense == DenseSettings(stride=2, quantity="depth", unit="m")
    assert bundle.manifest.classes == ()
    frame = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    session = StreamSession(Engine(bundle, "onnxruntime", "fp32"), FixedInterval(2))
    found = [session.process(frame).values for _ in range(2)]
    image = torch.from_numpy(frame).permute(2, 0, 1)[None] - torch.tensor(network.mean).view(1, 3, 1, 1)
    round_weights(network)
    with torch.inference_mode():
        expected = network(image / torch.tensor(network.std).view(1, 3, 1, 1))[0, 0].numpy()
    np.testing.assert_allclose(found[0], expected, atol=1e-4)
    assert found[1].shape == expected.shape == (HEIGHT // 2, WIDTH // 2)


def test_classes_are_refused(network: CutNetwork, tmp_path: Path) -> None:
    whole = DeepFeatureFlow(network, FlowNetInception(network.maps, 0.1))
    with pytest.raises(ExportError, match="has no classes, but the card names 2"):
        export_network(whole, card("near", "far"), tmp_path / "depth")
