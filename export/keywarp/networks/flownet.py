"""FlowNet Inception (Table 8), with the flow tail and the scale field of "Deep Feature Flow" (Zhu et al., 2017).

The contracting part is the table's. The expanding part follows FlowNet Simple ("FlowNet: Learning Optical Flow with
Convolutional Networks", Dosovitskiy et al., 2015), whose widths the table leaves open: they are 128, 64, 32, 16 here,
which meets the complexity of Table 2. Every convolution has a bias and, but for those that predict, a leaky ReLU.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from keywarp.networks.resnet import FEATURE_STRIDE

SLOPE = 0.1  # of the leaky ReLU
PIXEL_RANGE = 255.0  # images come in 0..255 less their mean; the network works in units of this
INPUT_DOWNSCALE = 2  # full-size pixels per pixel of the images that the flow network sees
FLOW_UNIT = 20.0  # a FlowNet predicts flow in units of 20 of its own pixels
CELLS_PER_UNIT = FLOW_UNIT * INPUT_DOWNSCALE / FEATURE_STRIDE  # 2.5 feature cells
REFINEMENT = (128, 64, 32, 16)  # channels of the deconvolutions, coarse to fine


class Motion(NamedTuple):
    """What propagation needs."""

    flow: Tensor  # (N, 2, H/16, W/16), (dx, dy) in cells, from current to key
    scale: Tensor  # (N, C, H/16, W/16)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution of half padding and its leaky ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.LeakyReLU(SLOPE))


class Inception(nn.Module):
    """Parallel branches, concatenated; with stride 2 it's the table's "Reduction", which also pools."""

    def __init__(
        self,
        inputs: int,
        *,
        point: int,
        single: tuple[int, int],
        double: tuple[int, int, int],
        pool: int = 0,
    ) -> None:
        """Build the branches.

        Args:
            inputs: Channels that come in.
            point: Channels of the 1x1 convolution; 0: no such branch.
            single: Channels of the 1x1 and 3x3 convolutions.
            double: Channels of the 1x1, 3x3 and 3x3 convolutions.
            pool: Channels of the 1x1 convolution after the pooling; 0: no such branch, and stride 1.
        """
        super().__init__()
        stride = 2 if pool else 1
        branches = [
            nn.Sequential(conv(inputs, single[0], 1), conv(single[0], single[1], 3, stride)),
            nn.Sequential(
                conv(inputs, double[0], 1), conv(double[0], double[1], 3), conv(double[1], double[2], 3, stride)
            ),
        ]
        if point:
            branches.insert(0, conv(inputs, point, 1, stride))
        if pool:
            branches.append(nn.Sequential(nn.MaxPool2d(3, stride, padding=1), conv(inputs, pool, 1)))
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, sum of the branches, H / stride, W / stride)."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Refinement(nn.Module):
    """One step of the expanding part: predict flow, double the resolution of it and of the features, join the skip."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.predict = nn.Conv2d(inputs, 2, 3, padding=1)
        self.deconv = nn.ConvTranspose2d(inputs, width, 4, stride=2)
        self.upsample_flow = nn.ConvTranspose2d(2, 2, 4, stride=2)
        self.relu = nn.LeakyReLU(SLOPE)

    def forward(self, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """Refine to the skip connection's resolution.

        Args:
            x: (N, inputs, H, W).
            skip: (N, S, h, w) with h in 2 H - 1 .. 2 H, w likewise.

        Returns:
            The joined map (N, S + width + 2, h, w), and the flow (N, 2, H, W) in units of `FLOW_UNIT`.
        """
        flow = self.predict(x)
        height, width = skip.shape[-2:]
        deep = self.relu(_crop(self.deconv(x), height, width))
        return torch.cat((skip, deep, _crop(self.upsample_flow(flow), height, width)), dim=1), flow


class FlowNetInception(nn.Module):
    """Two images -> flow and scale field at the resolution of the features."""

    def __init__(self, channels: int = 1024) -> None:
        """Build it with random weights; the scale is exactly 1 until it is trained.

        Args:
            channels: Of the feature map that the scale field is for.
        """
        super().__init__()
        self.conv1 = conv(6, 32, 7, 2)
        self.pool1 = nn.MaxPool2d(3, 2, padding=1)
        self.conv2 = Inception(32, point=0, single=(24, 32), double=(24, 32, 32))
        self.conv3_1 = conv(64, 128, 3, 2)
        self.conv3_2 = Inception(128, point=48, single=(32, 64), double=(8, 16, 16))
        self.conv3_3 = Inception(128, point=48, single=(48, 64), double=(12, 16, 16))
        self.conv4_1 = Inception(128, point=32, single=(112, 128), double=(28, 32, 32), pool=64)
        self.conv4_2 = Inception(256, point=96, single=(112, 128), double=(28, 32, 32))
        self.conv5_1 = Inception(256, point=48, single=(96, 192), double=(36, 48, 48), pool=96)
        self.conv5_2 = Inception(384, point=144, single=(96, 192), double=(36, 48, 48))
        self.conv6_1 = Inception(384, point=64, single=(192, 256), double=(48, 64, 64), pool=128)
        self.conv6_2 = Inception(512, point=192, single=(192, 256), double=(48, 64, 64))
        inputs = 512
        steps = []
        for skip, width in zip((384, 256, 128, 64), REFINEMENT, strict=True):
            steps.append(Refinement(inputs, width))
            inputs = skip + width + 2
        self.refine5, self.refine4, self.refine3, self.refine2 = steps
        self.pool = nn.AvgPool2d(2, ceil_mode=True)
        self.flow = nn.Conv2d(inputs, 2, 3, padding=1)
        self.scale = nn.Conv2d(inputs, channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, a=SLOPE)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # all have one
        for predict in (*(step.predict for step in steps), self.flow):
            nn.init.normal_(predict.weight, std=0.001)  # the first predictions are no motion
        nn.init.zeros_(self.scale.weight)
        nn.init.ones_(self.scale.bias)  # type: ignore[arg-type]

    def forward(self, current: Tensor, key: Tensor) -> Motion:
        """Estimate motion.

        Args:
            current: (N, 3, H/2, W/2): the current frame, mean-subtracted RGB in units of 0..255, average-pooled to half
                its size.
            key: The key frame, likewise.
        """
        return self.with_pyramid(current, key)[0]

    def with_pyramid(self, current: Tensor, key: Tensor) -> tuple[Motion, list[Tensor]]:
        """As `forward`, with the flows of the refinement steps too, coarse to fine, for training.

        They are in units of `FLOW_UNIT`, of strides 64, 32, 16 and 8 in pixels of the half-size images.
        """
        x = torch.cat((current, key), dim=1) / PIXEL_RANGE  # (N, 6, H/2, W/2)
        conv2 = self.conv2(self.pool1(self.conv1(x)))  # (N, 64, H/8, W/8)
        conv3 = self.conv3_3(self.conv3_2(self.conv3_1(conv2)))  # (N, 128, H/16, W/16)
        conv4 = self.conv4_2(self.conv4_1(conv3))  # (N, 256, H/32, W/32)
        conv5 = self.conv5_2(self.conv5_1(conv4))  # (N, 384, H/64, W/64)
        conv6 = self.conv6_2(self.conv6_1(conv5))  # (N, 512, H/128, W/128)
        x, flow6 = self.refine5(conv6, conv5)
        x, flow5 = self.refine4(x, conv4)
        x, flow4 = self.refine3(x, conv3)
        x, flow3 = self.refine2(x, conv2)  # (N, 82, H/8, W/8)
        x = self.pool(x)  # (N, 82, H/16, W/16)
        return Motion(self.flow(x) * CELLS_PER_UNIT, self.scale(x)), [flow6, flow5, flow4, flow3]


def _crop(x: Tensor, height: int, width: int) -> Tensor:
    return x[..., 1 : height + 1, 1 : width + 1]
