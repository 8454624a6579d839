from typing import Any

import pytest
import torch
from torch import Tensor, nn

from keywarp.networks import (
    DeepFeatureFlow,
    DetectionNetwork,
    FlowNetInception,
    NetworkOptions,
    ResNetFeatures,
    ResNetOptions,
    SegmentationNetwork,
    SplitNetwork,
    Task,
    build_network,
)
from keywarp.networks.resnet import RESNET50, RESNET101

SPLITS = (0, 1, 5, 12, 21)  # Table 5
CLASSES = 3


def network(task: Task, head_layers: int) -> SplitNetwork[Any]:
    torch.manual_seed(0)
    backbone = ResNetFeatures(ResNetOptions((1, 1, 4, 3), channels=8, width=0.25))
    if task == "segmentation":
        return SegmentationNetwork(backbone, CLASSES, head_layers).eval()
    return DetectionNetwork(backbone, CLASSES, head_layers).eval()


def flat(raw: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (raw,) if isinstance(raw, Tensor) else tuple(raw)


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_the_split_point_does_not_change_what_the_network_computes(task: Task) -> None:
    image = torch.randn(2, 3, 65, 90) * 60
    with torch.inference_mode():
        expected = flat(network(task, 1)(image))
        for head_layers in SPLITS:
            for found, want in zip(flat(network(task, head_layers)(image)), expected, strict=True):
                torch.testing.assert_close(found, want)


@pytest.mark.parametrize("task", ["segmentation", "detection"])
@pytest.mark.parametrize("head_layers", SPLITS)
def test_the_head_runs_the_requested_number_of_layers(task: Task, head_layers: int) -> None:
    """Count the modules that the head runs. As in the paper, the sibling convolutions of a task's head are one layer."""
    split = network(task, head_layers)
    siblings = set(split.task_head.modules())
    ran: set[nn.Module] = set()
    for module in split.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, *_: ran.add(split.task_head if m in siblings else m))
    features = split.features(torch.zeros(1, 3, 32, 32))
    ran.clear()
    split.head(*features)
    assert len(ran) == head_layers
    assert features[0].shape[1] == split.maps[0].channels


@pytest.mark.parametrize("blocks", [RESNET50, RESNET101])
@pytest.mark.parametrize(("head_layers", "channels"), [(0, CLASSES), (1, 1024), (5, 2048), (12, 1024), (21, 1024)])
def test_the_papers_networks_have_the_split_points_of_table_5(
    blocks: tuple[int, int, int, int], head_layers: int, channels: int
) -> None:
    with torch.device("meta"):
        split = SegmentationNetwork(ResNetFeatures(ResNetOptions(blocks)), CLASSES, head_layers)
        [features] = split.features(torch.zeros(1, 3, 97, 131))
    assert features.shape == (1, channels, 7, 9)
    assert (split.maps[0].channels, split.maps[0].stride) == (channels, 16)


def test_a_split_within_a_unit_is_refused_and_the_possible_ones_are_listed() -> None:
    with pytest.raises(ValueError, match=r"can't have 3 layers.*0, 1, 2, 5, 8, 12"):
        network("segmentation", 3)


def test_a_split_before_the_last_stride_is_refused() -> None:
    with pytest.raises(ValueError, match="can't have 28 layers"):
        network("segmentation", 28)


def test_predict_returns_probabilities() -> None:
    split = network("segmentation", 1)
    raw = split(torch.randn(2, 3, 64, 48) * 60)
    [scores] = split.predict(raw)
    torch.testing.assert_close(scores.sum(1), torch.ones(2, 4, 3))


@pytest.mark.parametrize("task", ["segmentation", "detection"])
@pytest.mark.parametrize("head_layers", SPLITS)
def test_zero_flow_and_an_untrained_scale_propagate_unchanged(task: Task, head_layers: int) -> None:
    recognition = network(task, head_layers)
    flow = FlowNetInception(recognition.maps, share=0.25).eval()
    nn.init.zeros_(flow.flow.weight)
    joined = DeepFeatureFlow(recognition, flow)
    key, current = torch.randn(2, 1, 3, 48, 70) * 60
    with torch.inference_mode():
        found = flat(joined(current, key, torch.tensor([True])))
        for value, want in zip(found, flat(recognition(key)), strict=True):
            torch.testing.assert_close(value, want, rtol=1e-4, atol=1e-4)


def test_a_flow_network_for_other_maps_is_refused() -> None:
    recognition = network("segmentation", 1)
    with pytest.raises(ValueError, match="the flow network is for"):
        DeepFeatureFlow(recognition, FlowNetInception(network("segmentation", 5).maps))


@pytest.mark.parametrize("flow", ["flownet", "flownet_half", "flownet_inception"])
@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_options_select_the_flow_network_and_the_task(task: Task, flow: str) -> None:
    with torch.device("meta"):
        built = build_network(NetworkOptions(4, task, RESNET50, flow=flow, head_layers=5))
        raw = built(torch.zeros(1, 3, 64, 96), torch.zeros(1, 3, 64, 96), torch.tensor([True]))
    assert flat(raw)[0].shape[-2:] == (4, 6)


def test_an_unknown_flow_network_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(ValueError, match=r"no flow network 'raft'.*flownet_half"):
        build_network(NetworkOptions(2, blocks=(1, 1, 1, 0), channels=8, flow="raft"))
