"""The operations and parameters of the networks, and Table 2 of "Deep Feature Flow" (Zhu et al., 2017).

A multiply-add counts as two operations. Convolutions, deconvolutions and matrix products are counted as the modules
compute them, so a deconvolution is counted in full, although its border is cropped. Batch norms aren't counted, since
they are folded into convolutions. Activations, pooling and resampling aren't counted either, since they cost little by
comparison.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from keywarp import saving
from keywarp.networks.flow_networks import FLOW_NETWORKS
from keywarp.networks.flownet import INPUT_DOWNSCALE, PAPER_MAP
from keywarp.networks.heads import SegmentationHead
from keywarp.networks.recognition import RecognitionNetwork
from keywarp.networks.resnet import ResNetFeatures, resnet50_features, resnet101_features
from keywarp.networks.rfcn import RFCNHead

FEATURE_NETWORKS: dict[str, Callable[[], ResNetFeatures]] = {
    "resnet50": resnet50_features,
    "resnet101": resnet101_features,
}
CITYSCAPES_CLASSES = 19 + 1  # including the background
VID_CLASSES = 30 + 1  # including the background
# Height and width in pixels. The paper's short side is 600. At 1024x2048, ratios differ by up to 1.5 %.
PAPER_SIZE = (600, 1000)
PAPER_RATIOS = {
    "resnet50": {"flownet": 9.20, "flownet_half": 33.56, "flownet_inception": 68.97},
    "resnet101": {"flownet": 12.71, "flownet_half": 46.30, "flownet_inception": 95.24},
}
COUNTING_RULES = (
    "Convolutions and deconvolutions are counted, but batch norms, activations and pooling aren't. A multiply-add is 2 "
    "operations. A ratio compares a feature network, with its reduction to 1024 channels and without a head, to a flow "
    "network with its scale field on images of half the size (Eq. 6)."
)


@dataclass(frozen=True)
class Complexity:
    """The cost of one forward pass of a network."""

    operations: int
    parameters: int


@dataclass(frozen=True)
class ComplexityRatio:
    """An entry of Table 2: the cost of a feature network relative to a flow network."""

    ratio: float  # O(N_feat) / (O(F) + O(S)): 1 / r of Eq. 6
    ratio_without_scale: float  # O(N_feat) / O(F)
    paper: float  # the ratio in the paper's table

    @property
    def difference(self) -> float:
        """Return the relative difference from the paper's ratio."""
        return self.ratio / self.paper - 1

    def speed_up(self, interval: int) -> float:
        """Return the speed-up over per-frame evaluation if every `interval`-th frame is a key frame (Eq. 7)."""
        return saving.predicted_speed_up(1 / self.ratio, interval)


def layer_operations(network: nn.Module, *shapes: tuple[int, ...]) -> dict[str, int]:
    """Count the operations of the 2-D convolutions and deconvolutions and of the linear layers in one forward pass.

    Operations outside these modules, such as attention written with functions, aren't counted.

    Args:
        network: The network. It is run in evaluation mode, and its previous mode is restored. On the "meta" device,
            this costs nothing.
        shapes: The shapes of the network's inputs.

    Returns:
        The operations by layer name.
    """
    device = next(network.parameters()).device
    training = [module for module in network.modules() if module.training]
    network.eval()  # so that batch norms don't learn from the zeros
    try:
        with torch.inference_mode(), counted_operations(network) as counts:
            network(*(torch.zeros(shape, device=device) for shape in shapes))
    finally:
        for module in training:
            module.training = True
    return counts


@contextmanager
def counted_operations(network: nn.Module) -> Iterator[dict[str, int]]:
    """Count the operations of a network's layers while the block runs it. See `layer_operations`.

    Yields:
        The operations by layer name, which grow as layers run.
    """
    counts: dict[str, int] = {}

    def count(name: str, layer: nn.Module, inputs: Any, named: dict[str, Any], output: Tensor) -> None:
        counts[name] = counts.get(name, 0) + 2 * _multiply_adds(layer, inputs[0] if inputs else named["input"], output)

    hooks = [
        layer.register_forward_hook(
            lambda layer, inputs, named, output, name=name: count(name, layer, inputs, named, output), with_kwargs=True
        )
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def doubt_saving(recognition: RecognitionNetwork[Any], height: int = 128, width: int = 160) -> str | None:
    """Say why propagation isn't worth it with a network, or return None if it is.

    It is judged by estimates: the operations of the layers, those that moving the maps and following the motion are
    worth, and no others. All of them grow with the image alike, so a small one is enough.

    Args:
        recognition: The network. It is run once.
        height: The height of the image in pixels, which the strides divide.
        width: Its width.
    """
    device = next((parameter.device for parameter in recognition.parameters()), torch.device("cpu"))
    with torch.inference_mode(), counted_operations(recognition) as counts:
        maps = recognition.features(torch.zeros(1, 3, height, width, device=device))
        before = sum(counts.values())
        recognition.head(*maps)
    whole = sum(counts.values())
    if not whole:
        return None
    map_bytes = sum(4 * x.numel() for x in maps)
    return saving.doubt(saving.estimate(whole, whole - before, map_bytes, height * width))


def measure(network: nn.Module, *shapes: tuple[int, ...]) -> Complexity:
    """Count a network's operations and parameters.

    Args:
        network: The network, as for `layer_operations`.
        shapes: The shapes of the network's inputs.
    """
    operations = sum(layer_operations(network, *shapes).values())
    return Complexity(operations, sum(parameter.numel() for parameter in network.parameters()))


def measure_networks(height: int = PAPER_SIZE[0], width: int = PAPER_SIZE[1]) -> dict[str, Complexity]:
    """Measure the paper's feature networks, flow networks, heads and warp.

    Args:
        height: The image's height in pixels.
        width: The image's width in pixels.

    Returns:
        The costs by name.
    """
    image, half, features = _shapes(height, width)
    found = {}
    with torch.device("meta"):
        for name, build in FEATURE_NETWORKS.items():
            found[name] = measure(build(), image)
        for name, build_flow in FLOW_NETWORKS.items():
            found[name] = measure(build_flow((PAPER_MAP,)), half, half)
        found["segmentation_head"] = measure(SegmentationHead(PAPER_MAP.channels, CITYSCAPES_CLASSES), features)
        found["detection_head"] = measure(RFCNHead(PAPER_MAP.channels, VID_CLASSES), features)
    found["warp"] = Complexity(saving.WARP_OPERATIONS * prod(features), 0)
    return found


def table_2(height: int = PAPER_SIZE[0], width: int = PAPER_SIZE[1]) -> dict[str, dict[str, ComplexityRatio]]:
    """Compute Table 2.

    Args:
        height: The image's height in pixels.
        width: The image's width in pixels.

    Returns:
        The ratios, by feature network and then by flow network.
    """
    image, half, _ = _shapes(height, width)
    with torch.device("meta"):
        features = {name: measure(build(), image).operations for name, build in FEATURE_NETWORKS.items()}
        flows = {
            name: layer_operations(FLOW_NETWORKS[name]((PAPER_MAP,)), half, half) for name in PAPER_RATIOS["resnet101"]
        }
    table: dict[str, dict[str, ComplexityRatio]] = {}
    for network, cost in features.items():
        table[network] = {}
        for flow, layers in flows.items():
            whole = sum(layers.values())
            scale = sum(count for name, count in layers.items() if name.startswith("scales."))
            table[network][flow] = ComplexityRatio(cost / whole, cost / (whole - scale), PAPER_RATIOS[network][flow])
    return table


def _shapes(height: int, width: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of an image, of the half-size image that flow networks see, and of the image's features."""

    def divided(channels: int, stride: int) -> tuple[int, ...]:
        return (1, channels, -(-height // stride), -(-width // stride))

    return divided(3, 1), divided(3, INPUT_DOWNSCALE), divided(PAPER_MAP.channels, PAPER_MAP.stride)


def _multiply_adds(layer: nn.Module, inputs: Tensor, output: Tensor) -> int:
    match layer:
        case nn.ConvTranspose2d():  # each input value is multiplied by its group's whole kernel
            return inputs.numel() * layer.out_channels // layer.groups * prod(layer.kernel_size)
        case nn.Conv2d():
            return output.numel() * layer.in_channels // layer.groups * prod(layer.kernel_size)
        case nn.Linear():
            return output.numel() * layer.in_features
    raise TypeError(f"operations of a {type(layer).__name__} can't be counted")
