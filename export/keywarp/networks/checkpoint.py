"""A checkpoint: trained networks, with what a user of them must know. Training writes it, export reads it."""

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
from keywarp.networks.flownet import FLOW_NETWORKS, FlowNetInception, FlowNetwork
from keywarp.networks.recognition import DetectionNetwork, SegmentationNetwork, SplitNetwork, Task
from keywarp.networks.regions import RegionOptions
from keywarp.networks.resnet import RESNET101, ResNetFeatures, ResNetOptions, StrideOn

Color = tuple[int, int, int]  # RGB, 0..255
PAPER_REGIONS = RegionOptions()


class CheckpointError(Exception):
    """A checkpoint is missing, damaged or of other networks."""


@dataclass(frozen=True)
class NetworkOptions:
    """Which networks they are. The defaults are the paper's."""

    classes: int  # with the background
    task: Task = "segmentation"
    blocks: tuple[int, int, int, int] = RESNET101  # see `ResNetOptions`
    channels: int = 1024  # of the feature map, after the reduction
    stride_on: StrideOn = "1x1"  # see `ResNetOptions`
    flow: str = "flownet"  # a name of `FLOW_NETWORKS`
    refinement: tuple[int, int, int, int] | None = None  # FlowNet Inception's widths; None: its default
    head_layers: int = 1  # see `SplitNetwork`
    width: float = 1.0  # see `ResNetOptions`
    flow_share: float = 1.0  # of the flow network's published channels
    regions: RegionOptions = PAPER_REGIONS  # of a detector


@dataclass(frozen=True)
class ModelCard:
    """What the model is, what it wants to see and how good it is."""

    name: str
    version: str
    license: str
    classes: Sequence[str | tuple[str, Color]]  # names, the background first; a colour is chosen where there is none
    short_side: int  # pixels: the frame size that it was trained for
    long_side: int
    multiple: int = 1  # sides are multiples of this, and of what the network itself needs
    key_interval: int = 10
    recipe: str = ""  # file name
    data: str = ""
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    notes: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """Weights, and the networks that they are for."""

    options: NetworkOptions
    card: ModelCard
    weights: Mapping[str, Tensor]

    def network(self) -> DeepFeatureFlow[Any]:
        """The trained networks.

        Raises:
            CheckpointError: The weights don't fit, or the options aren't of this version's networks.
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
    """The networks with random weights, batch norms folded.

    Args:
        options: Which ones.
        initialise: Loads weights into the feature network before its batch norms are folded.

    Raises:
        ValueError: An option has no such value.
    """
    recognition = build_recognition(options)
    initialise(recognition.backbone)
    fold_batch_norms(recognition.backbone)
    return DeepFeatureFlow(recognition, _flow_network(options, recognition.maps))


def build_recognition(options: NetworkOptions) -> SplitNetwork[Any]:
    """The recognition network alone, with random weights and frozen batch norms.

    Raises:
        ValueError: An option has no such value.
    """
    backbone = ResNetFeatures(ResNetOptions(options.blocks, options.channels, options.stride_on, options.width))
    if options.task == "segmentation":
        return SegmentationNetwork(backbone, options.classes, options.head_layers)
    return DetectionNetwork(backbone, options.classes, options.head_layers, options.regions)


def _flow_network(options: NetworkOptions, maps: tuple[FeatureMap, ...]) -> FlowNetwork:
    if options.flow not in FLOW_NETWORKS:
        raise ValueError(f"there is no flow network {options.flow!r}; there are: {', '.join(FLOW_NETWORKS)}")
    if options.refinement is not None:
        if options.flow != "flownet_inception":
            raise ValueError(f"the refinement of {options.flow} is the paper's: it can't be chosen")
        return FlowNetInception(maps, options.flow_share, options.refinement)
    return FLOW_NETWORKS[options.flow](maps, options.flow_share)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    description = {"options": asdict(checkpoint.options), "card": asdict(checkpoint.card)}
    torch.save({"description": json.dumps(description), "weights": dict(checkpoint.weights)}, partial)
    partial.replace(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; never executes code from it.

    Raises:
        CheckpointError: It is missing, damaged or not a checkpoint.
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
    """Fields read from JSON, which has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
