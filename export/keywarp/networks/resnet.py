"""ResNet-50 and ResNet-101 as feature networks of stride 16.

These are the networks of "Deep Residual Learning for Image Recognition" (He et al., 2016) with the changes of section 4
of "Deep Feature Flow" (Zhu et al., 2017): conv5 keeps the stride of conv4 and is dilated by 2, and a 3x3 convolution of
dilation 6 reduces the channels. Parameters are named as in torchvision, so that its weight files fit.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

FEATURE_STRIDE = 16  # image pixels per feature cell
EXPANSION = 4  # output channels of a bottleneck per channel of its 3x3 convolution
REDUCTION_DILATION = 6
STEM = 64  # channels of conv1
WIDTHS = (64, 128, 256, 512)  # channels of the 3x3 convolutions in conv2, conv3, conv4, conv5
RESNET50 = (3, 4, 6, 3)  # bottlenecks in conv2, conv3, conv4, conv5
RESNET101 = (3, 4, 23, 3)

StrideOn = Literal["1x1", "3x3"]


@dataclass(frozen=True)
class ResNetOptions:
    """The depth and width of a ResNet."""

    blocks: tuple[int, int, int, int]  # bottlenecks in conv2, conv3, conv4, conv5; 0 in conv5 ends after conv4
    channels: int = 1024  # channels of the feature map, after the reduction
    # The convolution that applies a bottleneck's stride: the first 1x1 in the original ResNet ("v1", as in Caffe's and
    # Keras's weights), and the 3x3 in torchvision's ("v1.5").
    stride_on: StrideOn = "1x1"
    width: float = 1.0  # fraction of the published channels before the reduction, for compact networks


class Bottleneck(nn.Module):
    """A residual unit: 1x1, 3x3 and 1x1 convolutions, added to the identity or a projection."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int, stride_on: StrideOn) -> None:
        super().__init__()
        self.outputs = outputs = width * EXPANSION
        first, middle = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.conv1 = nn.Conv2d(inputs, width, 1, stride=first, bias=False)
        self.bn1 = FrozenBatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=middle, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = FrozenBatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = FrozenBatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, FrozenBatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Run the unit: (N, inputs, H, W) -> (N, 4 width, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNetFeatures(nn.Module):
    """The feature network, which computes the feature map that is cached and warped."""

    def __init__(self, options: ResNetOptions) -> None:
        super().__init__()
        self.options = options
        stem, *widths = (round(channels * options.width) for channels in (STEM, *WIDTHS))
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = FrozenBatchNorm2d(stem)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = stem
        stages = []
        for width, blocks, stride, dilation in zip(widths, options.blocks, (1, 2, 2, 1), (1, 1, 1, 2), strict=True):
            stage = []
            for block in range(blocks):
                stage.append(Bottleneck(inputs, width, stride if block == 0 else 1, dilation, options.stride_on))
                inputs = width * EXPANSION
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.reduction = nn.Conv2d(inputs, options.channels, 3, padding=REDUCTION_DILATION, dilation=REDUCTION_DILATION)
        nn.init.normal_(self.reduction.weight, std=0.01)
        nn.init.zeros_(self.reduction.bias)  # type: ignore[arg-type]  # there is one: bias is True by default

    def stem(self, image: Tensor) -> Tensor:
        """Run conv1 and the pooling after it: (N, 3, H, W) -> (N, 64 width, ceil(H / 4), ceil(W / 4))."""
        x: Tensor = self.maxpool(torch.relu(self.bn1(self.conv1(image))))
        return x

    def bottlenecks(self) -> list[Bottleneck]:
        """Return the units of conv2 to conv5 in order."""
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        return [block for stage in stages for block in stage if isinstance(block, Bottleneck)]

    def reduce(self, x: Tensor) -> Tensor:
        """Reduce the last stage's channels to `options.channels`, by the appended convolution and its ReLU."""
        return torch.relu(self.reduction(x))

    def forward(self, image: Tensor) -> Tensor:
        """Compute the features.

        Args:
            image: (N, 3, H, W): RGB in units of 0..255, minus the image mean.

        Returns:
            The feature map (N, channels, ceil(H / 16), ceil(W / 16)), with no negative values.
        """
        x = self.stem(image)  # (N, 64, H/4, W/4)
        x = self.layer2(self.layer1(x))  # (N, 512, H/8, W/8)
        x = self.layer4(self.layer3(x))  # (N, 1024 or 2048, H/16, W/16)
        return self.reduce(x)


def resnet50_features(channels: int = 1024, stride_on: StrideOn = "1x1") -> ResNetFeatures:
    """Build the paper's smaller feature network, with random weights."""
    return ResNetFeatures(ResNetOptions(RESNET50, channels, stride_on))


def resnet101_features(channels: int = 1024, stride_on: StrideOn = "1x1") -> ResNetFeatures:
    """Build the paper's default feature network, with random weights."""
    return ResNetFeatures(ResNetOptions(RESNET101, channels, stride_on))


def resnet50_conv4_features(channels: int = 1024, conv4_blocks: int = 6) -> ResNetFeatures:
    """Build a ResNet-50 that ends within conv4, with random weights. It has a third of the parameters."""
    return ResNetFeatures(ResNetOptions((3, 4, conv4_blocks, 0), channels))
