"""The exported detector through streams, against the same networks in PyTorch."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from keywarp.datasets.classes import BACKGROUND, distinct_colors
from keywarp.engines import AVAILABLE, BackendName, Engine, FixedInterval, FrameResult, StreamSession, load_bundle
from keywarp.engines.manifest import RegionDetection
from keywarp.export.bundle import export_network
from keywarp.networks import DeepFeatureFlow, DetectionMaps, DetectionNetwork, ModelCard, NetworkOptions, build_network
from keywarp.networks.flownet import ExpandingFlowNetwork
from keywarp.networks.regions import Objects, RegionOptions, detect

OPTIONS = NetworkOptions(
    classes=4, task="detection", blocks=(1, 1, 1, 0), channels=16, flow="flownet_inception", head_layers=1
)
NAMES = ("cat", "dog", "bird")
CARD = ModelCard(
    name="tiny-detector",
    version="0.1.0",
    license="Apache-2.0",
    classes=(BACKGROUND, *zip(NAMES, distinct_colors(3), strict=True)),
    short_side=95,
    long_side=200,
    key_interval=3,
)
SETTINGS = RegionDetection(candidates=500, proposals=60, threshold=0.1, limit=40)
REFERENCE = RegionOptions(candidates=500, proposals=60, threshold=0.1, limit=40)


def network() -> DeepFeatureFlow[DetectionMaps]:
    """Random networks with a visible flow, a scale that isn't 1 and heads that make up their minds."""
    torch.manual_seed(0)
    built = build_network(OPTIONS).eval()
    assert isinstance(built.recognition, DetectionNetwork)
    assert isinstance(built.flow, ExpandingFlowNetwork)
    torch.nn.init.normal_(built.flow.flow.weight, std=0.1)
    torch.nn.init.normal_(next(built.flow.scales.parameters()), std=0.02)
    for part in built.recognition.task_head.children():
        torch.nn.init.normal_(next(part.parameters()), std=0.3)
    return built


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_network(network(), CARD, tmp_path_factory.mktemp("bundle"), SETTINGS).path


def frames() -> list[np.ndarray]:
    blocks = np.random.default_rng(0).integers(0, 256, (4, 12, 17, 3), np.uint8)
    return list(blocks.repeat(8, axis=1).repeat(8, axis=2)[:, :95, :131].copy())


def expected(images: list[np.ndarray]) -> list[Objects]:
    """Algorithm 1 in PyTorch, the first frame being the key frame."""
    nets = network()
    for parameter in nets.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half().float()  # as the bundle stores them
    mean = torch.tensor(nets.recognition.mean).view(1, 3, 1, 1)
    key, *others = (torch.from_numpy(i).permute(2, 0, 1)[None].float() - mean for i in images)
    with torch.inference_mode():
        maps = [nets.recognition(key)]
        maps += [nets(current, key, torch.tensor([True])) for current in others]
        return [detect(m, key.shape[-2], key.shape[-1], REFERENCE)[0] for m in maps]


def same(result: FrameResult, want: Objects) -> float:
    """The share of the expected objects that were found: same class, nearly the same score and box."""
    found = result.detections
    hits = 0
    for box, score, label in zip(want.boxes.numpy(), want.scores.numpy(), want.labels.numpy(), strict=True):
        near = np.abs(found.xyxy - box).max(axis=1, initial=0) < 0.5
        hits += bool((near & (found.class_id == label) & (np.abs(found.confidence - score) < 1e-3)).any())
    return hits / max(1, len(want.scores))


@pytest.mark.parametrize("backend", AVAILABLE)
def test_the_stream_finds_what_pytorch_finds(backend: BackendName, bundle: Path, tmp_path: Path) -> None:
    """Sums in another order may turn the decision between two boxes of almost equal score: hence not all, but most."""
    session = StreamSession(Engine(load_bundle(bundle), backend, "fp32", cache=tmp_path), FixedInterval(10))
    images = frames()
    for image, want in zip(images, expected(images), strict=True):
        result = session.process(image)
        assert len(want.scores) > 10
        assert abs(len(result.detections.confidence) - len(want.scores)) <= 2
        assert same(result, want) > 0.9


def test_a_detectors_own_regions_are_in_the_bundle(tmp_path: Path) -> None:
    regions = RegionOptions(
        anchor_scales=(2.0, 4.0), anchor_ratios=(1.0,), pooling=3, proposals=40, box_std=(1, 1, 1, 1)
    )
    export_network(build_network(replace(OPTIONS, regions=regions)).eval(), CARD, tmp_path / "own")
    settings = load_bundle(tmp_path / "own").manifest.detection
    assert isinstance(settings, RegionDetection)
    assert {name: getattr(settings, name) for name in asdict(regions)} == asdict(regions)


def test_propagation_changes_the_result() -> None:
    first, second, *_ = expected(frames())
    assert first.boxes.shape != second.boxes.shape or not torch.equal(first.boxes, second.boxes)
