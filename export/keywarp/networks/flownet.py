"""The flow networks of "Deep Feature Flow" (Zhu et al., 2017): FlowNet, FlowNet Half and FlowNet Inception.

The contracting parts are those of the paper's appendix A (Tables 6, 7 and 8). The expanding part is that of FlowNet
Simple ("FlowNet: Learning Optical Flow with Convolutional Networks", Dosovitskiy et al., 2015). It ends in the tail, a
map at 1/8 of the full image's resolution. Resampled to the feature maps' resolutions, the tail gives the flow and the
scale fields (section 4). Every convolution has a bias. All but those that predict a flow or a scale field have a leaky
ReLU.

Sizes below are in pixels of the full image (H, W); the networks see images of half that size. All sizes round up.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from keywarp.networks.feature_maps import FeatureMap

SLOPE = 0.1  # negative slope of the leaky ReLU
PIXEL_RANGE = 255.0  # the networks divide mean-free images in 0..255 by this
INPUT_DOWNSCALE = 2  # full-size pixels per pixel of the half-size images
OUTPUT_STRIDE = 4  # half-size pixels per cell of the expanding part's last map
FLOW_STRIDE = OUTPUT_STRIDE * INPUT_DOWNSCALE  # full-size pixels per cell of that map
FLOW_UNIT = 20.0  # unit of the flow that a FlowNet predicts, in half-size pixels
PAPER_MAP = FeatureMap(1024, 16)  # the paper's intermediate feature maps

Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d)


class FlowPrediction(NamedTuple):
    """A flow and the scale fields, as the warp takes them."""

    flow: Tensor  # (N, 2, ceil(H / stride), ceil(W / stride)), (dx, dy) in cells of `stride`, from current to key
    scales: tuple[Tensor, ...]  # one scale field for each feature map, of the same shape


class Refinement(nn.Module):
    """One step of the expanding part.

    It predicts a flow, doubles the resolution of the flow and of the features, and concatenates both with the skip
    connection.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.predict = flow_layer(inputs)
        self.deconv = _initialised(nn.ConvTranspose2d(inputs, width, 4, stride=2))
        self.upsample_flow = _initialised(nn.ConvTranspose2d(2, 2, 4, stride=2))
        self.relu = nn.LeakyReLU(SLOPE)

    def forward(self, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """Refine to the skip connection's resolution.

        Args:
            x: The features so far, (N, inputs, H, W).
            skip: The skip connection, (N, S, h, w) with h in 2 H - 1 .. 2 H and w in 2 W - 1 .. 2 W.

        Returns:
            The concatenated map (N, S + width + 2, h, w), and the flow (N, 2, H, W) in units of `FLOW_UNIT`.
        """
        flow = self.predict(x)
        height, width = skip.shape[-2:]
        deep = self.relu(_crop(self.deconv(x), height, width))
        return torch.cat((skip, deep, _crop(self.upsample_flow(flow), height, width)), dim=1), flow


def resampled(x: Tensor, stride: int, image: Tensor) -> Tensor:
    """Resample a map from `FLOW_STRIDE` to another stride.

    Args:
        x: The map, (N, C, ceil(H / FLOW_STRIDE), ceil(W / FLOW_STRIDE)).
        stride: The other stride, an even number of full-size pixels.
        image: The half-size image, (N, 3, ceil(H / 2), ceil(W / 2)).

    Returns:
        The map, (N, C, ceil(H / stride), ceil(W / stride)).
    """
    if stride == FLOW_STRIDE:
        return x
    if stride >= 2 * FLOW_STRIDE and stride % (2 * INPUT_DOWNSCALE) == 0:
        return functional.avg_pool2d(resampled(x, stride // 2, image), 2, ceil_mode=True)
    pixels = stride // INPUT_DOWNSCALE
    height, width = ((size + pixels - 1) // pixels for size in image.shape[-2:])
    if FLOW_STRIDE % stride == 0:  # double, then crop, since resizing directly to an odd size would shift the cells
        finer = resampled(x, 2 * stride, image)
        doubled = functional.interpolate(finer, scale_factor=2, mode="bilinear", align_corners=False)
        return doubled[..., :height, :width]
    return functional.interpolate(x, (height, width), mode="bilinear", align_corners=False)


class FlowNetwork(nn.Module, ABC):
    """Base class of networks that predict, from two images, a flow and a scale field for every feature map.

    Until the network is trained, the scale fields are exactly 1.
    """

    scales: nn.ModuleList  # the last layer of each scale field, in the order of the maps

    def __init__(self, maps: Sequence[FeatureMap]) -> None:
        """Check the feature maps.

        Args:
            maps: The feature maps that are warped.

        Raises:
            ValueError: If there is no map, or a map's stride isn't even.
        """
        super().__init__()
        self.maps = tuple(maps)
        if not self.maps or any(m.stride % INPUT_DOWNSCALE for m in self.maps):
            raise ValueError(
                f"a flow network needs one or more feature maps, of even strides since its images have half the size; "
                f"it got maps of strides {[m.stride for m in self.maps]}"
            )
        self.stride = min(m.stride for m in self.maps)  # the flow's stride

    @property
    def cells_per_unit(self) -> float:
        """Return the cells of the flow's stride per `FLOW_UNIT`: 2.5 at stride 16."""
        return FLOW_UNIT * INPUT_DOWNSCALE / self.stride

    def forward(self, current: Tensor, key: Tensor) -> FlowPrediction:
        """Predict the flow and the scale fields.

        Args:
            current: The current frame, (N, 3, H/2, W/2): RGB in units of 0..255, minus the image mean, average-pooled
                to half its size.
            key: The key frame, of the same shape and in the same units.
        """
        return self.forward_with_pyramid(current, key)[0]

    @abstractmethod
    def forward_with_pyramid(self, current: Tensor, key: Tensor) -> tuple[FlowPrediction, list[Tensor]]:
        """Predict like `forward`, and also return the coarser flows on the way, for training.

        Args:
            current: The current frame, as for `forward`.
            key: The key frame, as for `forward`.

        Returns:
            The prediction and the flows, coarse to fine, each (N, 2, h, w) in units of `FLOW_UNIT`.
        """


class ExpandingFlowNetwork(FlowNetwork):
    """Base class of the paper's flow networks: a contracting part, and FlowNet Simple's expanding part."""

    def __init__(self, maps: Sequence[FeatureMap], contraction: Sequence[int], refinement: Sequence[int]) -> None:
        """Build the expanding part and the tail, which all networks share, with random weights.

        Args:
            maps: The feature maps that are warped.
            contraction: The channels of the contracting part's maps, in the order of `contract`.
            refinement: The channels of the deconvolutions, coarse to fine.

        Raises:
            ValueError: If there is no map, or a map's stride isn't even.
        """
        super().__init__(maps)
        *skips, inputs = contraction
        self.refinement = nn.ModuleList()
        for skip, width in zip(reversed(skips), refinement, strict=True):
            self.refinement.append(Refinement(inputs, width))
            inputs = skip + width + 2
        self.flow = flow_layer(inputs)
        self.scales = nn.ModuleList(scale_layer(inputs, m.channels) for m in self.maps)

    @abstractmethod
    def contract(self, x: Tensor) -> list[Tensor]:
        """Run the contracting part.

        Args:
            x: Both images, (N, 6, H/2, W/2), in units of `PIXEL_RANGE`.

        Returns:
            The maps that the refinement steps take, fine to coarse, with strides 8, 16, 32, 64 and 128.
        """

    def forward_with_pyramid(self, current: Tensor, key: Tensor) -> tuple[FlowPrediction, list[Tensor]]:
        """Predict like `forward`, and also return the flows of the refinement steps, for training.

        Args:
            current: The current frame, as for `forward`.
            key: The key frame, as for `forward`.

        Returns:
            The prediction and the flows of the refinement steps, coarse to fine, in units of `FLOW_UNIT`. Their strides
            are 64, 32, 16 and 8 half-size pixels.
        """
        *skips, x = self.contract(torch.cat((current, key), dim=1) / PIXEL_RANGE)
        pyramid = []
        for refine, skip in zip(self.refinement, reversed(skips), strict=True):
            x, flow = refine(x, skip)
            pyramid.append(flow)
        tails = {stride: resampled(x, stride, current) for stride in {m.stride for m in self.maps}}
        scales = tuple(scale(tails[m.stride]) for m, scale in zip(self.maps, self.scales, strict=True))
        return FlowPrediction(self.flow(tails[self.stride]) * self.cells_per_unit, scales), pyramid


class FlowNet(ExpandingFlowNetwork):
    """FlowNet Simple (Table 6)."""

    width: ClassVar[int] = 64  # channels of conv1; the others are multiples of it

    def __init__(self, maps: Sequence[FeatureMap] = (PAPER_MAP,), share: float = 1.0) -> None:
        """Build the network with random weights.

        Args:
            maps: The feature maps that are warped.
            share: The fraction of the table's channels, below 1 for compact networks.

        Raises:
            ValueError: If there is no map, or a map's stride isn't even.
        """
        w = round(self.width * share)
        super().__init__(maps, contraction=(2 * w, 4 * w, 8 * w, 8 * w, 16 * w), refinement=(8 * w, 4 * w, 2 * w, w))
        self.conv1 = conv(6, w, 7, 2)
        self.conv2 = conv(w, 2 * w, 5, 2)
        self.conv3 = conv(2 * w, 4 * w, 5, 2)
        self.conv3_1 = conv(4 * w, 4 * w, 3)
        self.conv4 = conv(4 * w, 8 * w, 3, 2)
        self.conv4_1 = conv(8 * w, 8 * w, 3)
        self.conv5 = conv(8 * w, 8 * w, 3, 2)
        self.conv5_1 = conv(8 * w, 8 * w, 3)
        self.conv6 = conv(8 * w, 16 * w, 3, 2)
        self.conv6_1 = conv(16 * w, 16 * w, 3)

    def contract(self, x: Tensor) -> list[Tensor]:
        """Run the contracting part.

        The maps have 128, 256, 512, 512 and 1024 channels, or half of that in FlowNet Half.
        """
        conv2 = self.conv2(self.conv1(x))  # (N, 128, H/8, W/8)
        conv3 = self.conv3_1(self.conv3(conv2))  # (N, 256, H/16, W/16)
        conv4 = self.conv4_1(self.conv4(conv3))  # (N, 512, H/32, W/32)
        conv5 = self.conv5_1(self.conv5(conv4))  # (N, 512, H/64, W/64)
        conv6 = self.conv6_1(self.conv6(conv5))  # (N, 1024, H/128, W/128)
        return [conv2, conv3, conv4, conv5, conv6]


class FlowNetHalf(FlowNet):
    """FlowNet with half the channels, and so about a quarter of the operations (Table 7)."""

    width: ClassVar[int] = 32


class FlowNetInception(ExpandingFlowNetwork):
    """A flow network of Inception blocks, with about an eighth of FlowNet's operations (Table 8).

    The table gives the contracting part only. The deconvolutions have 64, 32, 16 and 8 channels, an eighth of
    FlowNet's, because the whole network has an eighth of its operations. With the scale field counted, which reproduces
    Table 2's other entries to 0.3 %, the ratios are then 2 % from the table's. Twice as many channels would be 12 %
    away, or 2 % without the scale field.
    """

    def __init__(
        self,
        maps: Sequence[FeatureMap] = (PAPER_MAP,),
        share: float = 1.0,
        refinement: tuple[int, int, int, int] = (64, 32, 16, 8),
    ) -> None:
        """Build the network with random weights.

        Args:
            maps: The feature maps that are warped.
            share: The fraction of the table's channels, below 1 for compact networks.
            refinement: The channels of the deconvolutions, coarse to fine, before `share` is applied.

        Raises:
            ValueError: If there is no map, or a map's stride isn't even.
        """
        stem = conv(6, reduced(32, share), 7, 2)
        conv2 = Inception(reduced(32, share), point=0, single=(24, 32), double=(24, 32, 32), share=share)
        conv3_1 = conv(conv2.outputs, reduced(128, share), 3, 2)
        conv3_2 = Inception(reduced(128, share), point=48, single=(32, 64), double=(8, 16, 16), share=share)
        conv3_3 = Inception(conv3_2.outputs, point=48, single=(48, 64), double=(12, 16, 16), share=share)
        conv4_1 = Inception(conv3_3.outputs, point=32, single=(112, 128), double=(28, 32, 32), pool=64, share=share)
        conv4_2 = Inception(conv4_1.outputs, point=96, single=(112, 128), double=(28, 32, 32), share=share)
        conv5_1 = Inception(conv4_2.outputs, point=48, single=(96, 192), double=(36, 48, 48), pool=96, share=share)
        conv5_2 = Inception(conv5_1.outputs, point=144, single=(96, 192), double=(36, 48, 48), share=share)
        conv6_1 = Inception(conv5_2.outputs, point=64, single=(192, 256), double=(48, 64, 64), pool=128, share=share)
        conv6_2 = Inception(conv6_1.outputs, point=192, single=(192, 256), double=(48, 64, 64), share=share)
        super().__init__(
            maps,
            contraction=[block.outputs for block in (conv2, conv3_3, conv4_2, conv5_2, conv6_2)],
            refinement=[reduced(channels, share) for channels in refinement],
        )
        self.conv1, self.pool1, self.conv2 = stem, nn.MaxPool2d(3, 2, padding=1), conv2
        self.conv3_1, self.conv3_2, self.conv3_3 = conv3_1, conv3_2, conv3_3
        self.conv4_1, self.conv4_2 = conv4_1, conv4_2
        self.conv5_1, self.conv5_2 = conv5_1, conv5_2
        self.conv6_1, self.conv6_2 = conv6_1, conv6_2

    def contract(self, x: Tensor) -> list[Tensor]:
        """Run the contracting part; the maps have 64, 128, 256, 384 and 512 channels."""
        conv2 = self.conv2(self.pool1(self.conv1(x)))  # (N, 64, H/8, W/8)
        conv3 = self.conv3_3(self.conv3_2(self.conv3_1(conv2)))  # (N, 128, H/16, W/16)
        conv4 = self.conv4_2(self.conv4_1(conv3))  # (N, 256, H/32, W/32)
        conv5 = self.conv5_2(self.conv5_1(conv4))  # (N, 384, H/64, W/64)
        conv6 = self.conv6_2(self.conv6_1(conv5))  # (N, 512, H/128, W/128)
        return [conv2, conv3, conv4, conv5, conv6]


class Inception(nn.Module):
    """Parallel branches, concatenated. With stride 2 it is the table's "Reduction", which also has a pooling branch."""

    def __init__(
        self,
        inputs: int,
        *,
        point: int,
        single: tuple[int, int],
        double: tuple[int, int, int],
        pool: int = 0,
        share: float = 1.0,
    ) -> None:
        """Build the branches.

        Args:
            inputs: The input channels.
            point: The channels of the 1x1 convolution, or 0 to leave out that branch.
            single: The channels of the 1x1 and the 3x3 convolution.
            double: The channels of the 1x1, the first 3x3 and the second 3x3 convolution.
            pool: The channels of the 1x1 convolution after the pooling. With 0, there is no such branch and the stride
                is 1.
            share: The fraction of these channels that the branches have. It doesn't apply to `inputs`.
        """
        super().__init__()
        point, pool = reduced(point, share), reduced(pool, share)
        single = (reduced(single[0], share), reduced(single[1], share))
        double = (reduced(double[0], share), reduced(double[1], share), reduced(double[2], share))
        self.outputs = point + single[-1] + double[-1] + pool
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
        """Run the branches: (N, inputs, H, W) -> (N, sum of the branches' channels, H / stride, W / stride)."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def reduced(channels: int, share: float) -> int:
    """Return a share of a number of channels, at least one unless that number is 0."""
    return max(round(channels * share), 1) if channels else 0


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Build a convolution with a padding of half its kernel, followed by a leaky ReLU."""
    return nn.Sequential(_initialised(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)), nn.LeakyReLU(SLOPE))


def flow_layer(inputs: int, outputs: int = 2) -> nn.Conv2d:
    """Build a convolution that predicts a flow, at first of almost no motion."""
    layer = _initialised(nn.Conv2d(inputs, outputs, 3, padding=1))
    nn.init.normal_(layer.weight, std=0.001)
    return layer


def scale_layer(inputs: int, channels: int) -> nn.Conv2d:
    """Build a convolution that predicts a scale field, exactly 1 at first (section 3)."""
    layer = nn.Conv2d(inputs, channels, 1)
    nn.init.zeros_(layer.weight)
    nn.init.ones_(layer.bias)  # type: ignore[arg-type]  # there is one: bias is True by default
    return layer


def _initialised(layer: Layer) -> Layer:
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is one: bias is True by default
    return layer


def _crop(x: Tensor, height: int, width: int) -> Tensor:
    return x[..., 1 : height + 1, 1 : width + 1]
