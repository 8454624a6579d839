"""Joint training of feature network, flow network and head on pairs of frames (section 3 of the paper)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from keywarp.datasets import IGNORE, DataError
from keywarp.datasets.batches import PairBatch
from keywarp.networks import FEATURE_STRIDE, DeepFeatureFlow, DetectionNetwork, RecognitionNetwork, SplitNetwork
from keywarp.training.detection import DetectionLossOptions, detection_loss
from keywarp.training.images import normalised
from keywarp.training.loop import ParameterGroup
from keywarp.training.process import CPU
from keywarp.training.recipe import JointTraining
from keywarp.training.variants import Method

DETECTION_DEFAULTS = DetectionLossOptions()


@dataclass(frozen=True)
class TaskLoss:
    """The task's loss of a recognition network's outputs."""

    recognition: RecognitionNetwork[Any]
    seed: int = 0  # random seed for the anchors that a detector learns from
    detection: DetectionLossOptions = DETECTION_DEFAULTS

    def __call__(self, raw: Any, batch: PairBatch) -> Tensor:
        """Compute the loss.

        Args:
            raw: The outputs of the recognition network's head for the batch's current frames.
            batch: The samples, with pixel labels or boxes of the current frames.

        Returns:
            The mean over the batch's samples, all with the same weight.

        Raises:
            DataError: If the samples have no labels for the task.
        """
        if not isinstance(self.recognition, DetectionNetwork):
            if batch.labels is None:
                raise DataError("the data have no pixel labels, which segmentation is learned from")
            return segmentation_loss(raw, batch.labels.to(raw.device).long())
        if len(batch.boxes) != len(batch.numbers):
            raise DataError("the data have no boxes, which detection is learned from")
        height, width = batch.current.shape[1:3]
        generators = [torch.Generator().manual_seed(hash((self.seed, number))) for number in batch.numbers]
        return detection_loss(raw, batch.boxes, height, width, self.recognition.regions, generators, self.detection)


@dataclass(frozen=True)
class FrameLoss:
    """The task's loss on single frames (Figure 2a)."""

    recognition: RecognitionNetwork[Any]
    task: TaskLoss
    device: torch.device = CPU

    def __call__(self, batch: PairBatch) -> Tensor:
        """Return the loss, a mean over the batch's current frames."""
        return self.task(self.recognition(normalised(batch.current.to(self.device))), batch)


@dataclass(frozen=True)
class PairLoss:
    """The task's loss on current frames whose features are propagated from key frames (Figure 2b)."""

    network: DeepFeatureFlow[Any]
    task: TaskLoss
    device: torch.device = CPU

    def __call__(self, batch: PairBatch) -> Tensor:
        """Return the loss, a mean over the batch's pairs."""
        current, key = (normalised(x.to(self.device)) for x in (batch.current, batch.key))
        return self.task(self.network(current, key, batch.propagated.to(self.device)), batch)


def segmentation_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy at the labels' resolution: a mean over each image's known pixels, then over the images.

    Args:
        scores: The scores before the softmax (N, C, H/16, W/16).
        labels: The class ids, int64 (N, H, W).
    """
    large = upsample(scores.float())[..., : labels.shape[-2], : labels.shape[-1]]
    losses = functional.cross_entropy(large, labels, ignore_index=IGNORE, reduction="none").sum((1, 2))
    return (losses / (labels != IGNORE).sum((1, 2)).clamp(min=1)).mean()


def upsample(scores: Tensor) -> Tensor:
    """Enlarge scores (N, C, H/16, W/16) to (N, C, H, W), bilinear between cell centres (not aligned corners)."""
    return functional.interpolate(scores, scale_factor=FEATURE_STRIDE, mode="bilinear", align_corners=False)


def parameter_groups(network: DeepFeatureFlow[Any], training: JointTraining, method: Method) -> list[ParameterGroup]:
    """Freeze the parameters that the method doesn't train, and group the others by learning rate.

    Args:
        network: The networks; parameters that aren't trained lose their `requires_grad`.
        training: The learning rates, and how many stages of the feature network are frozen.
        method: The parts to train.

    Raises:
        TypeError: If the recognition network isn't made of the stages of a ResNet.
    """
    recognition = network.recognition
    if not isinstance(recognition, SplitNetwork):
        raise TypeError(f"{type(recognition).__name__} has no stages that could be frozen")
    backbone = recognition.backbone
    stages: list[nn.Module] = [backbone.conv1, backbone.layer1, backbone.layer2]
    for stage in stages[: training.frozen_stages]:
        stage.requires_grad_(False)
    trained = [*stages[training.frozen_stages :], backbone.layer3, backbone.layer4]
    new = [*backbone.reduction.parameters(), *recognition.task_head.parameters()]
    scales = [*network.flow.scales.parameters()]
    moving = [p for name, p in network.flow.named_parameters() if not name.startswith("scales.")]
    pretrained = [p for stage in trained for p in stage.parameters()]
    for parameters, learn in (
        ([*pretrained, *new], method.trains_recognition),
        (moving, method.trains_flow),
        (scales, method.trains_scale),
    ):
        _freeze(parameters, not learn)
    return [
        ParameterGroup("features", pretrained, training.features_rate),
        ParameterGroup("flow", [*moving, *scales], training.flow_rate),
        ParameterGroup("new", new, training.new_rate),
    ]


def _freeze(parameters: Iterable[nn.Parameter], frozen: bool) -> None:
    for parameter in parameters:
        if frozen:
            parameter.requires_grad_(False)
