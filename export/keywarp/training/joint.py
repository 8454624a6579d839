"""Joint training of feature network, flow network and head on pairs of frames (section 3 of the paper)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from keywarp.datasets import IGNORE, PairSampler
from keywarp.networks import FEATURE_STRIDE, DeepFeatureFlow, SplitNetwork
from keywarp.training.images import normalised
from keywarp.training.loop import Rate
from keywarp.training.recipe import JointTraining


def joint_loss(network: DeepFeatureFlow[Tensor], sampler: PairSampler, step: int, batch: int) -> Tensor:
    """Cross-entropy of the current frames' labels, at the labels' resolution."""
    pairs = sampler.labelled(step, batch)
    logits = network(normalised(pairs.current), normalised(pairs.key), torch.from_numpy(pairs.propagated))
    labels = torch.from_numpy(pairs.labels).long()
    return functional.cross_entropy(enlarged(logits.float()), labels, ignore_index=IGNORE)


def enlarged(scores: Tensor) -> Tensor:
    """(N, C, H/16, W/16) -> (N, C, H, W), bilinear between cell centres (not aligned corners)."""
    return functional.interpolate(scores, scale_factor=FEATURE_STRIDE, mode="bilinear", align_corners=False)


def joint_rates(network: DeepFeatureFlow[Tensor], training: JointTraining) -> list[Rate]:
    """Freeze the first stages, and give what is new a larger learning rate than what is pre-trained."""
    recognition = network.recognition
    if not isinstance(recognition, SplitNetwork):
        raise TypeError(f"{type(recognition).__name__} has no stages that could be frozen")
    backbone = recognition.backbone
    stages: list[nn.Module] = [backbone.conv1, backbone.layer1, backbone.layer2]
    for stage in stages[: training.frozen_stages]:
        stage.requires_grad_(False)
    trained = [*stages[training.frozen_stages :], backbone.layer3, backbone.layer4]
    new = [*backbone.reduction.parameters(), *recognition.task_head.parameters()]
    return [
        ([p for stage in trained for p in stage.parameters()], training.features_rate),
        (network.flow.parameters(), training.flow_rate),
        (new, training.new_rate),
    ]
