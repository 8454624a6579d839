"""Checkpoints: the weights of trained networks with the facts needed to use them."""

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keywarp.networks.batch_norms import fold_batch_norms
from keywarp.networks.dff import DeepFeatureFlow
from keywarp.networks.feature_maps import FeatureMap
from keywarp.networks.flow_networks import FLOW_NETWORKS
from keywarp.networks.flownet import FlowNetInception, FlowNetwork
from keywarp.networks.recognition import DetectionNetwork, SegmentationNetwork, SplitNetwork, Task
from keywarp.networks.regions import RegionOptions
from keywarp.networks.resnet import RESNET101, ResNetFeatures, ResNetOptions, StrideOn

Color = tuple[int, int, int]  # RGB, 0..255
PAPER_REGIONS = RegionOptions()


class CheckpointError(Exception):
    """A checkpoint is missing or damaged, or its weights don't fit its networks."""


@dataclass(frozen=True)
class NetworkOptions:
    """The architecture of the networks. The defaults are the paper's."""

    classes: int  # including the background
    task: Task = "segmentation"
    blocks: tuple[int, int, int, int] = RESNET101  # bottlenecks in conv2, conv3, conv4, conv5
    channels: int = 1024  # channels of the feature map, after the reduction
    stride_on: StrideOn = "1x1"  # the convolution of a bottleneck that has its stride
    flow: str = "flownet"  # one of `FLOW_NETWORKS`
    refinement: tuple[int, int, int, int] | None = None  # FlowNet Inception's widths, or its default
    head_layers: int = 1  # layers that run on every frame, as in `SplitNetwork`
    width: float = 1.0  # fraction of the ResNet's published channels
    flow_share: float = 1.0  # fraction of the flow network's published channels
    regions: RegionOptions = PAPER_REGIONS  # for detection only


@dataclass(frozen=True)
class ModelCard:
    """The facts about a model that its users need: name, input size, classes, origin and accuracy."""

    name: str
    version: str
    license: str
    classes: Sequence[str | tuple[str, Color]]  # names, the background first, with or without a colour
    short_side: int  # pixels: frame size in training
    long_side: int  # pixels
    multiple: int = 1  # pixels that image sides are multiples of, besides the network's own multiple
    key_interval: int = 10
    recipe: str = ""  # file name of the training recipe
    data: str = ""
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    notes: str = ""
    motion: str = "network"  # the default motion source


@dataclass(frozen=True)
class Checkpoint:
    """The weights of trained networks with the options to build them."""

    options: NetworkOptions
    card: ModelCard
    weights: Mapping[str, Tensor]

    def network(self) -> DeepFeatureFlow[Any]:
        """Build the networks and load the weights.

        Raises:
            CheckpointError: If the weights don't fit the networks, or this version doesn't support the options.
        """
        try:
            network = build_network(self.options)
            network.load_state_dict(dict(self.weights))
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"the weights of {self.card.name} don't fit its networks: {error}") from error
        return network.eval()


def build_network(
    options: NetworkOptions, initialise: Callable[[ResNetFeatures], None] = lambda _: None
) -> DeepFeatureFlow[Any]:
    """Build the networks with random weights and folded batch norms.

    Args:
        options: The architecture.
        initialise: A function that loads weights into the feature network before its batch norms are folded.

    Raises:
        ValueError: If an option's value isn't supported.
    """
    recognition = build_recognition(options)
    initialise(recognition.backbone)
    fold_batch_norms(recognition.backbone)
    return DeepFeatureFlow(recognition, _flow_network(options, recognition.maps))


def build_recognition(options: NetworkOptions) -> SplitNetwork[Any]:
    """Build the recognition network alone, with random weights and frozen batch norms.

    Raises:
        ValueError: If an option's value isn't supported.
    """
    backbone = ResNetFeatures(ResNetOptions(options.blocks, options.channels, options.stride_on, options.width))
    if options.task == "segmentation":
        return SegmentationNetwork(backbone, options.classes, options.head_layers)
    return DetectionNetwork(backbone, options.classes, options.head_layers, options.regions)


def _flow_network(options: NetworkOptions, maps: tuple[FeatureMap, ...]) -> FlowNetwork:
    if options.flow not in FLOW_NETWORKS:
        raise ValueError(f"there is no flow network {options.flow!r}; choose one of {', '.join(FLOW_NETWORKS)}")
    if options.refinement is not None:
        if options.flow != "flownet_inception":
            raise ValueError(f"`refinement` is for flownet_inception only, not for {options.flow}; leave it out")
        return FlowNetInception(maps, options.flow_share, options.refinement)
    return FLOW_NETWORKS[options.flow](maps, options.flow_share)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    description = {"options": asdict(checkpoint.options), "card": asdict(checkpoint.card)}
    torch.save({"description": json.dumps(description), "weights": dict(checkpoint.weights)}, partial)
    partial.replace(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without executing any code from it.

    Raises:
        CheckpointError: If the file is missing, damaged or not a checkpoint.
    """
    try:
        content = torch.load(path, weights_only=True)
        description = json.loads(content["description"])
        card = description["card"]
        card["classes"] = tuple(c if isinstance(c, str) else (c[0], tuple(c[1])) for c in card["classes"])
        options = _tuples(description["options"])
        options["regions"] = RegionOptions(**_tuples(options.get("regions", {})))
        return Checkpoint(NetworkOptions(**options), ModelCard(**card), content["weights"])
    except OSError as error:
        raise CheckpointError(f"can't read the checkpoint {path}: {error.strerror}") from error
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of keywarp train or init") from error


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Convert lists to tuples in fields read from JSON, which has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
