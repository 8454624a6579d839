"""The pre-trained flow network that every imported network starts with, and its file of weights.

`pretrained_flow(network.maps)` is the flow network for a network's feature maps, with weights that already know motion.
The scale fields depend on the maps, and start at exactly 1.
"""

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keywarp.networks.feature_maps import FeatureMap
from keywarp.networks.flow_pyramid import FlowPyramid
from keywarp.networks.pretrained import WeightsError

SHIPPED = Path(__file__).parent / "weights" / "flow_pyramid.pt"
_SCALES = "scales."  # names of the weights of scale fields


@dataclass(frozen=True)
class FlowWeights:
    """The weights of a `FlowPyramid` without its scale fields, and where they come from."""

    share: float  # fraction of the channels; see `FlowPyramid`
    license: str
    description: Mapping[str, Any]  # how they were trained
    weights: Mapping[str, Tensor]


def pretrained_flow(maps: Sequence[FeatureMap], file: Path = SHIPPED) -> FlowPyramid:
    """Build the pre-trained flow network for some feature maps.

    Args:
        maps: The feature maps that are warped.
        file: A file of weights that `keywarp train-flow` wrote.

    Raises:
        WeightsError: If the file is missing, damaged or holds other weights.
        ValueError: If there is no map, or a map's stride isn't supported.
    """
    known = load_flow_weights(file)
    network = FlowPyramid(maps, known.share)
    expected = {name for name in network.state_dict() if not name.startswith(_SCALES)}
    if expected != set(known.weights):
        odd = sorted(expected ^ set(known.weights))[0]
        raise WeightsError(f"{file} doesn't hold the weights of a FlowPyramid: {odd} is missing or unknown")
    try:
        network.load_state_dict(dict(known.weights), strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{file} doesn't fit a FlowPyramid of share {known.share}: {error}") from error
    return network


def load_flow_weights(file: Path) -> FlowWeights:
    """Read a file of weights without executing any code from it.

    Raises:
        WeightsError: If the file is missing, damaged or no such file.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        about = json.loads(content["about"])
        weights = {name: value.float() for name, value in content["weights"].items()}
        return FlowWeights(about["share"], about["license"], about["description"], weights)
    except OSError as error:
        raise WeightsError(f"can't read the flow weights {file}: {error.strerror}") from error
    except (pickle.UnpicklingError, RuntimeError, LookupError, TypeError, ValueError, EOFError) as error:
        raise WeightsError(f"{file} is not a file of flow weights; `keywarp train-flow` writes them") from error


def save_flow_weights(weights: FlowWeights, file: Path) -> None:
    """Write weights atomically, as 16-bit floats and without scale fields."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    about = {"share": weights.share, "license": weights.license, "description": dict(weights.description)}
    halves = {
        name: value.detach().half().cpu().contiguous()
        for name, value in weights.weights.items()
        if not name.startswith(_SCALES)
    }
    torch.save({"about": json.dumps(about), "weights": halves}, partial)
    partial.replace(file)
