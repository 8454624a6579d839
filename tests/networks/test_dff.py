import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from keywarp.networks import (
    Checkpoint,
    CheckpointError,
    DetectionNetwork,
    FlowNetInception,
    ModelCard,
    NetworkOptions,
    SegmentationNetwork,
    build_network,
    load_checkpoint,
    save_checkpoint,
)
from keywarp.networks.flownet import ExpandingFlowNetwork
from keywarp.networks.regions import RegionOptions

OPTIONS = NetworkOptions(classes=3, blocks=(1, 1, 1, 0), channels=8, flow="flownet_inception")
NARROW = replace(OPTIONS, width=0.25, flow_share=0.25)


def test_a_pair_of_the_same_frame_is_evaluated_per_frame() -> None:
    torch.manual_seed(0)
    network = build_network(NARROW).eval()
    assert isinstance(network.flow, ExpandingFlowNetwork)
    torch.nn.init.normal_(network.flow.flow.weight, std=1)  # a flow that would be seen
    key, current = torch.randn(2, 1, 3, 48, 64) * 60
    same = network(key, key, torch.tensor([False]))
    torch.testing.assert_close(same, network.recognition(key))
    assert not torch.allclose(same, network(current, key, torch.tensor([True])))


def test_images_are_divided_by_the_networks_standard_deviation() -> None:
    torch.manual_seed(0)
    network = build_network(NARROW).eval()
    network.recognition.std = (2.0, 4.0, 8.0)
    image = torch.randn(1, 3, 48, 64) * 60
    divided = image / torch.tensor([2.0, 4.0, 8.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(network(image, image, torch.tensor([False])), network.recognition(divided))


def test_all_three_networks_get_gradients_from_one_pair() -> None:
    torch.manual_seed(0)
    network = build_network(NARROW)
    recognition = network.recognition
    assert isinstance(recognition, SegmentationNetwork)
    assert isinstance(network.flow, ExpandingFlowNetwork)
    key, current = torch.randn(2, 2, 3, 48, 64) * 60
    network(current, key, torch.tensor([True, False])).square().sum().backward()
    for part in (
        recognition.backbone.reduction.weight,
        network.flow.flow.weight,
        network.flow.scales[0].weight,
        next(recognition.task_head.parameters()),
    ):
        assert isinstance(part, torch.Tensor)
        assert part.grad is not None
        assert part.grad.abs().sum() > 0


def card() -> ModelCard:
    classes = (("background", (0, 0, 0)), ("disc", (255, 0, 0)), ("ring", (0, 255, 0)))
    return ModelCard(
        "tiny", "0.1.0", "Apache-2.0", classes, 64, 96, 16, 10, "tiny.toml", "made", {"clip": {"mean": 0.5}}
    )


def test_a_saved_checkpoint_is_loaded_unchanged(tmp_path: Path) -> None:
    network = build_network(OPTIONS)
    save_checkpoint(Checkpoint(OPTIONS, card(), network.state_dict()), tmp_path / "c.pt")
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert (loaded.options, loaded.card) == (OPTIONS, card())
    for name, tensor in loaded.network().state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])


def test_a_detectors_regions_and_widths_are_loaded_unchanged(tmp_path: Path) -> None:
    regions = RegionOptions(anchor_scales=(2, 4), anchor_ratios=(1,), pooling=3, box_std=(1, 1, 1, 1), proposals=50)
    options = replace(OPTIONS, task="detection", width=0.25, flow_share=0.5, refinement=(8, 8, 8, 8), regions=regions)
    save_checkpoint(Checkpoint(options, card(), build_network(options).state_dict()), tmp_path / "c.pt")
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert loaded.options == options
    network = loaded.network()
    recognition, flow = network.recognition, network.flow
    assert isinstance(flow, FlowNetInception)
    assert flow.conv2.outputs == 32
    assert isinstance(recognition, DetectionNetwork)
    assert recognition.backbone.conv1.weight.shape[0] == 16
    assert recognition.regions == regions


def test_a_checkpoint_from_before_there_were_widths_and_regions_is_still_read(tmp_path: Path) -> None:
    network = build_network(OPTIONS)
    save_checkpoint(Checkpoint(OPTIONS, card(), network.state_dict()), tmp_path / "c.pt")
    content = torch.load(tmp_path / "c.pt", weights_only=True)
    description = json.loads(content["description"])
    for added in ("width", "flow_share", "regions"):
        del description["options"][added]
    torch.save({**content, "description": json.dumps(description)}, tmp_path / "old.pt")
    loaded = load_checkpoint(tmp_path / "old.pt")
    assert loaded.options == OPTIONS
    loaded.network()


def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("not a checkpoint")
    torch.save({"weights": {}}, tmp_path / "other.pt")
    for name in ("text.pt", "other.pt", "missing.pt"):
        with pytest.raises(CheckpointError, match=name):
            load_checkpoint(tmp_path / name)


def test_weights_of_other_networks_are_refused() -> None:
    with pytest.raises(CheckpointError, match="don't fit"):
        Checkpoint(replace(OPTIONS, blocks=(1, 1, 2, 0)), card(), build_network(OPTIONS).state_dict()).network()
