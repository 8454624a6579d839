"""Trainings that take seconds: networks of a few channels learn to recognise the moving square."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from keywarp.datasets import Augmentation, PairBatch, PairDataset
from keywarp.networks import DeepFeatureFlow, NetworkOptions, Task, build_network, unfreeze_batch_norms
from keywarp.networks.checkpoint import build_recognition
from keywarp.networks.regions import RegionOptions
from keywarp.training.joint import FrameLoss, PairLoss, TaskLoss, parameter_groups
from keywarp.training.loop import ParameterGroup, Stage
from keywarp.training.recipe import CropRecipe, JointTraining, Optimization
from keywarp.training.variants import METHODS, Method
from tests.datasets.synthetic import Squares

OPTIONS = NetworkOptions(
    classes=2,
    blocks=(1, 1, 1, 0),
    channels=8,
    width=0.25,
    flow="flownet_inception",
    flow_share=0.25,
    regions=RegionOptions(anchor_ratios=(1.0,), anchor_scales=(1.0, 2.0), pooling=3, candidates=20, proposals=8),
)
JOINT = JointTraining(
    steps=4,
    batch=4,
    features_rate=1e-3,
    flow_rate=1e-3,
    new_rate=1e-2,
    crop=CropRecipe(height=48, width=64, zoom=(0.9, 1.2)),
)
SGD = Optimization(algorithm="sgd", warm_up=0)
DFF = METHODS["dff"]


def networks(task: Task = "segmentation") -> DeepFeatureFlow[Any]:
    """Build tiny networks, always with the same random weights."""
    torch.manual_seed(0)
    return build_network(replace(OPTIONS, task=task)).train()


def pairs(batch: int = 4, max_gap: int = 9) -> PairDataset:
    """Return pairs of frames of the moving square, and its labels."""
    crop = JOINT.crop
    return PairDataset(Squares(), Augmentation(crop.height, crop.width, crop.zoom), batch, seed=3, max_gap=max_gap)


def joint_stage(
    network: DeepFeatureFlow[Any],
    steps: int = 4,
    optimization: Optimization = SGD,
    method: Method = DFF,
    settings: str = "",
) -> Stage[PairBatch]:
    """Return a stage that trains the networks jointly."""
    return Stage(
        name="joint",
        network=network,
        groups=parameter_groups(network, JOINT, method),
        batches=pairs(max_gap=method.max_gap),
        loss=PairLoss(network, TaskLoss(network.recognition)),
        steps=steps,
        optimization=optimization,
        settings=settings,
    )


def frame_stage(steps: int = 4) -> Stage[PairBatch]:
    """Return a stage that trains a recognition network from scratch on single frames, with unfrozen batch norms."""
    torch.manual_seed(0)
    recognition = build_recognition(OPTIONS)
    unfreeze_batch_norms(recognition.backbone)
    return Stage(
        name="features",
        network=recognition.train(),
        groups=[ParameterGroup("features", [*recognition.parameters()], 1e-3)],
        batches=pairs(max_gap=0),
        loss=FrameLoss(recognition, TaskLoss(recognition)),
        steps=steps,
        optimization=SGD,
    )


def moved_parts(before: Mapping[str, Tensor], network: DeepFeatureFlow[Any]) -> set[str]:
    """Return the parts whose weights differ from those before.

    If a part has changed, nearly all of its tensors must have changed.
    """
    changed: dict[str, list[bool]] = {}
    for name, value in network.state_dict().items():
        if "conv" in name and name.endswith("bias") and name.startswith("recognition.backbone"):
            assert torch.equal(value, before[name]), name  # this is the bias of a folded batch norm, which is frozen
            continue
        part = name.split(".")[1]
        part = part if name.startswith("recognition.") else "scales" if part == "scales" else "flow"
        changed.setdefault(part, []).append(not torch.equal(value, before[name]))
    for part, tensors in changed.items():
        assert sum(tensors) in (0, *range(round(0.8 * len(tensors)), len(tensors) + 1)), part
    return {part for part, tensors in changed.items() if any(tensors)}
