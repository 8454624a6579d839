"""A checkpoint: trained networks, with what a user of them must know. Training writes it, export reads it."""

import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keywarp.networks.dff import DeepFeatureFlow
from keywarp.networks.flownet import FlowNetInception
from keywarp.networks.folding import fold_batch_norms
from keywarp.networks.heads import SegmentationHead
from keywarp.networks.resnet import resnet50_conv4_features


class CheckpointError(Exception):
    """A checkpoint is missing, damaged or of other networks."""


@dataclass(frozen=True)
class NetworkOptions:
    """The sizes of the networks."""

    channels: int  # of the feature map
    conv4_blocks: int  # ResNet-50 ends after these
    classes: int  # with the background


@dataclass(frozen=True)
class ModelCard:
    """What the model is, what it wants to see and how good it is."""

    name: str
    version: str
    license: str
    classes: tuple[tuple[str, tuple[int, int, int]], ...]  # name and RGB colour; the background first
    short_side: int  # pixels: the frame size that it was trained for
    long_side: int
    multiple: int
    key_interval: int
    recipe: str  # file name
    data: str
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    notes: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """Weights, and the networks that they are for."""

    options: NetworkOptions
    card: ModelCard
    weights: Mapping[str, Tensor]

    def network(self) -> DeepFeatureFlow:
        """The trained networks.

        Raises:
            CheckpointError: The weights don't fit.
        """
        network = build_network(self.options)
        try:
            network.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            raise CheckpointError(f"the weights of {self.card.name} don't fit its networks: {error}") from error
        return network.eval()


def build_network(options: NetworkOptions) -> DeepFeatureFlow:
    """The networks with random weights, batch norms folded."""
    features = resnet50_conv4_features(options.channels, options.conv4_blocks)
    fold_batch_norms(features)
    return DeepFeatureFlow(
        features, FlowNetInception(options.channels), SegmentationHead(options.channels, options.classes)
    )


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
        card["classes"] = tuple((name, tuple(color)) for name, color in card["classes"])
        return Checkpoint(NetworkOptions(**description["options"]), ModelCard(**card), content["weights"])
    except OSError as error:
        raise CheckpointError(f"can't read the checkpoint {path}: {error.strerror}") from error
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of keywarp train") from error
