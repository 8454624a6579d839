"""The API of docs/own-network.md in a typed script. `test_types.py` checks its types against the wheels."""

from collections.abc import Mapping
from itertools import islice
from typing import assert_type

import torch
from torch import Tensor, nn

from keywarp.client import open_source
from keywarp.engines import Engine, FixedInterval, StreamSession
from keywarp.engines.bundle import Bundle
from keywarp.engines.manifest import DenseDetection
from keywarp.export import export_network
from keywarp.networks import (
    TORCHVISION_MEAN,
    CutNetwork,
    DeepFeatureFlow,
    FeatureMap,
    FlowNet,
    FlowNetInception,
    ModelCard,
    cut,
    load_flownet_weights,
)
from keywarp.networks.complexity import layer_operations


class Segmenter(nn.Module):
    """A network with a backbone and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 16, 3, stride=8, padding=1)
        self.classifier = nn.Conv2d(16, 3, 1)


def features(model: Segmenter, image: Tensor) -> Tensor:
    """The part that runs on key frames only."""
    found: Tensor = model.backbone(image)
    return found


def two_maps(model: Segmenter, image: Tensor) -> Mapping[str, Tensor]:
    """The same, as several maps by name."""
    low = model.backbone(image)
    return {"low": low, "high": nn.functional.avg_pool2d(low, 2)}


def head(model: Segmenter, cells: Tensor) -> Tensor:
    """The part that runs on every frame."""
    scores: Tensor = model.classifier(cells)
    return scores


def boxes_and_scores(model: Segmenter, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """A detector's head."""
    scores = model.classifier(low).flatten(2).transpose(1, 2)
    return high.new_zeros(*scores.shape[:2], 4), scores


def main() -> None:
    """Cut, export, run and train, in the page's order."""
    model = Segmenter()
    assert_type(layer_operations(model, (1, 3, 512, 1024)), dict[str, int])
    network = cut(model, features, head)
    assert_type(network, CutNetwork)
    assert_type(network.maps, tuple[FeatureMap, ...])

    card = ModelCard(
        name="deeplab",
        version="0.1.0",
        license="BSD-3-Clause",
        classes=["background", ("road", (128, 64, 128))],
        short_side=128,
        long_side=256,
    )
    whole = DeepFeatureFlow(network, FlowNetInception(network.maps))
    bundle = export_network(whole, card, "models/deeplab")
    assert_type(bundle, Bundle)

    engine = Engine(bundle, motion="dis")
    session = StreamSession(engine, FixedInterval(5))
    with open_source("street.mp4") as frames:
        engine.prepare(frames.height, frames.width)
        for frame in islice(frames, 10):
            result = session.process(frame.image)
            print(result.index, result.kind, result.labels.shape, f"{1000 * result.inference:.0f} ms")

    with open_source("street.mp4") as frames:
        clip = torch.stack([torch.tensor(frame.image).permute(2, 0, 1) for frame in islice(frames, 6)])
    images = nn.functional.interpolate(clip.float(), (96, 192)) - torch.tensor(TORCHVISION_MEAN).view(1, 3, 1, 1)
    network.requires_grad_(False)
    optimizer = torch.optim.Adam(whole.flow.parameters(), lr=1e-4)
    current, key = images[1:], images[:-1]
    with torch.no_grad():
        target = torch.softmax(network.head(*whole.features(current)), dim=1)
    scores = whole(current, key, propagated=torch.ones(len(key), dtype=torch.bool))
    optimizer.zero_grad()
    nn.functional.cross_entropy(scores, target).backward()  # type: ignore[no-untyped-call]  # torch's, not ours
    optimizer.step()
    flow = FlowNet(network.maps)
    load_flownet_weights(flow, torch.load("flownet.pth"))

    half = (127.5, 127.5, 127.5)
    detector = cut(model, two_maps, boxes_and_scores, task="detection", mean=half, std=half)
    card = ModelCard("ssdlite", "0.1.0", "BSD-3-Clause", ["background", "car"], short_side=320, long_side=320)
    whole = DeepFeatureFlow(detector, flow)
    bundle = export_network(whole, card, "models/ssdlite", DenseDetection(threshold=0.3, iou=0.55))
    session = StreamSession(Engine(bundle), FixedInterval(5))
    with open_source("street.mp4") as frames:
        for frame in frames:
            result = session.process(frame.image)
            print(len(result.detections.xyxy), "objects")
