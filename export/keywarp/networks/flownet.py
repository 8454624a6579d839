"""The flow networks of "Deep Feature Flow" (Zhu et al., 2017): FlowNet, FlowNet Half and FlowNet Inception.

The contracting parts are those of its appendix A (Tables 6, 7 and 8). The expanding part is FlowNet Simple's ("FlowNet:
Learning Optical Flow with Convolutional Networks", Dosovitskiy et al., 2015). It ends at 1/8 of the full image, in the
tail: resampled to the feature maps, it gives the flow and the scale fields (section 4). Every convolution has a bias
and, but for those that predict, a leaky ReLU.

Sizes below are in pixels of the full image (H, W); the networks see half of that. All of them round up.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from keywarp.networks.feature_maps import FeatureMap

SLOPE = 0.1  # of the leaky ReLU
PIXEL_RANGE = 255.0  # images come in 0..255 less their mean; the networks work in units of this
INPUT_DOWNSCALE = 2  # full-size pixels per pixel of the images that the networks see
OUTPUT_STRIDE = 4  # pixels of those images per cell of the last concatenation
FLOW_STRIDE = OUTPUT_STRIDE * INPUT_DOWNSCALE  # the same in full-size pixels
FLOW_UNIT = 20.0  # a FlowNet predicts flow in units of 20 of its own pixels
STRIDES = (4, 8, 16, 32, 64, 128)  # full-size pixels per cell of the feature maps that there can be motion for
PAPER_MAP = FeatureMap(1024, 16)  # the paper's intermediate feature maps

Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d)


class FlowPrediction(NamedTuple):
    """What propagation needs."""

    flow: Tensor  # (N, 2, ceil(H / stride), ceil(W / stride)), (dx, dy) in cells of `stride`, from current to key
    scales: tuple[Tensor, ...]  # one per feature map, of its shape


class Refinement(nn.Module):
    """One step of the expanding part: predict flow, double the resolution of it and of the features, join the skip."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.predict = _predict(inputs)
        self.deconv = _initialised(nn.ConvTranspose2d(inputs, width, 4, stride=2))
        self.upsample_flow = _initialised(nn.ConvTranspose2d(2, 2, 4, stride=2))
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


class FlowNetwork(nn.Module, ABC):
    """Two images -> flow, and a scale field for every feature map. The scales are exactly 1 until they are trained."""

    def __init__(self, maps: Sequence[FeatureMap], contraction: Sequence[int], refinement: Sequence[int]) -> None:
        """Build what the networks share, with random weights: the expanding part and the tail.

        Args:
            maps: The feature maps that propagation moves.
            contraction: Channels of the contracting part's maps, as `contract` gives them.
            refinement: Channels of the deconvolutions, coarse to fine.

        Raises:
            ValueError: There is no map, or a stride isn't one of `STRIDES`.
        """
        super().__init__()
        self.maps = tuple(maps)
        if not self.maps or not all(m.stride in STRIDES for m in self.maps):
            raise ValueError(
                f"a flow network needs feature maps of strides {', '.join(map(str, STRIDES))}; "
                f"it got {[m.stride for m in self.maps]}"
            )
        self.stride = min(m.stride for m in self.maps)  # of the flow
        *skips, inputs = contraction
        self.refinement = nn.ModuleList()
        for skip, width in zip(reversed(skips), refinement, strict=True):
            self.refinement.append(Refinement(inputs, width))
            inputs = skip + width + 2
        self.pool = nn.AvgPool2d(2, ceil_mode=True)
        self.flow = _predict(inputs)
        self.scales = nn.ModuleList(_scale_field(inputs, m.channels) for m in self.maps)

    @property
    def cells_per_unit(self) -> float:
        """Cells of the flow's stride per `FLOW_UNIT`: 2.5 at stride 16."""
        return FLOW_UNIT * INPUT_DOWNSCALE / self.stride

    @abstractmethod
    def contract(self, x: Tensor) -> list[Tensor]:
        """Run the contracting part.

        Args:
            x: (N, 6, H/2, W/2), both images, in units of `PIXEL_RANGE`.

        Returns:
            The maps that refinement joins, fine to coarse, of strides 8, 16, 32, 64 and 128.
        """

    def forward(self, current: Tensor, key: Tensor) -> FlowPrediction:
        """Estimate motion.

        Args:
            current: (N, 3, H/2, W/2): the current frame, mean-subtracted RGB in units of 0..255, average-pooled to half
                its size.
            key: The key frame, likewise.
        """
        return self.forward_with_pyramid(current, key)[0]

    def forward_with_pyramid(self, current: Tensor, key: Tensor) -> tuple[FlowPrediction, list[Tensor]]:
        """As `forward`, with the flows of the refinement steps too, coarse to fine, for training.

        They are in units of `FLOW_UNIT`, of strides 64, 32, 16 and 8 in pixels of the half-size images.
        """
        *skips, x = self.contract(torch.cat((current, key), dim=1) / PIXEL_RANGE)
        pyramid = []
        for refine, skip in zip(self.refinement, reversed(skips), strict=True):
            x, flow = refine(x, skip)
            pyramid.append(flow)
        tails = {stride: self._tail(x, stride, current) for stride in {m.stride for m in self.maps}}
        scales = tuple(scale(tails[m.stride]) for m, scale in zip(self.maps, self.scales, strict=True))
        return FlowPrediction(self.flow(tails[self.stride]) * self.cells_per_unit, scales), pyramid

    def _tail(self, x: Tensor, stride: int, image: Tensor) -> Tensor:
        """The last concatenation, of `FLOW_STRIDE`, at another stride; `image` is of half size."""
        if stride < FLOW_STRIDE:
            height, width = ((size + 1) // 2 for size in image.shape[-2:])
            # double, then crop: to resize to an odd size at once would shift the cells
            doubled = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            return doubled[..., :height, :width]
        while stride > FLOW_STRIDE:
            x = self.pool(x)
            stride //= 2
        return x


class FlowNet(FlowNetwork):
    """FlowNet Simple (Table 6)."""

    width: ClassVar[int] = 64  # channels of conv1; the others are multiples of it

    def __init__(self, maps: Sequence[FeatureMap] = (PAPER_MAP,), share: float = 1.0) -> None:
        """Build it with random weights.

        Args:
            maps: The feature maps that propagation moves.
            share: Of the table's channels, for compact networks.

        Raises:
            ValueError: As for `FlowNetwork`.
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
        """(N, 6, H/2, W/2) -> maps of 128, 256, 512, 512 and 1024 channels, half as many in FlowNet Half."""
        conv2 = self.conv2(self.conv1(x))  # (N, 128, H/8, W/8)
        conv3 = self.conv3_1(self.conv3(conv2))  # (N, 256, H/16, W/16)
        conv4 = self.conv4_1(self.conv4(conv3))  # (N, 512, H/32, W/32)
        conv5 = self.conv5_1(self.conv5(conv4))  # (N, 512, H/64, W/64)
        conv6 = self.conv6_1(self.conv6(conv5))  # (N, 1024, H/128, W/128)
        return [conv2, conv3, conv4, conv5, conv6]


class FlowNetHalf(FlowNet):
    """FlowNet with half the channels, so a quarter of the operations (Table 7)."""

    width: ClassVar[int] = 32


class FlowNetInception(FlowNetwork):
    """An eighth of FlowNet's operations (Table 8).

    The table ends with the contracting part. The deconvolutions have an eighth of FlowNet's channels, 64, 32, 16, 8, as
    the whole has an eighth of its operations. With the scale field counted, by which Table 2's other entries come out
    to 0.3 %, that is 2 % from its entries; twice as many channels would be 12 % away, or 2 % without the scale field.
    """

    def __init__(
        self,
        maps: Sequence[FeatureMap] = (PAPER_MAP,),
        share: float = 1.0,
        refinement: tuple[int, int, int, int] = (64, 32, 16, 8),
    ) -> None:
        """Build it with random weights.

        Args:
            maps: The feature maps that propagation moves.
            share: Of the table's channels, for compact networks.
            refinement: Channels of the deconvolutions, coarse to fine, where `share` is 1.

        Raises:
            ValueError: As for `FlowNetwork`.
        """
        stem = conv(6, _share(32, share), 7, 2)
        conv2 = Inception(_share(32, share), point=0, single=(24, 32), double=(24, 32, 32), share=share)
        conv3_1 = conv(conv2.outputs, _share(128, share), 3, 2)
        conv3_2 = Inception(_share(128, share), point=48, single=(32, 64), double=(8, 16, 16), share=share)
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
            refinement=[_share(channels, share) for channels in refinement],
        )
        self.conv1, self.pool1, self.conv2 = stem, nn.MaxPool2d(3, 2, padding=1), conv2
        self.conv3_1, self.conv3_2, self.conv3_3 = conv3_1, conv3_2, conv3_3
        self.conv4_1, self.conv4_2 = conv4_1, conv4_2
        self.conv5_1, self.conv5_2 = conv5_1, conv5_2
        self.conv6_1, self.conv6_2 = conv6_1, conv6_2

    def contract(self, x: Tensor) -> list[Tensor]:
        """(N, 6, H/2, W/2) -> maps of 64, 128, 256, 384 and 512 channels."""
        conv2 = self.conv2(self.pool1(self.conv1(x)))  # (N, 64, H/8, W/8)
        conv3 = self.conv3_3(self.conv3_2(self.conv3_1(conv2)))  # (N, 128, H/16, W/16)
        conv4 = self.conv4_2(self.conv4_1(conv3))  # (N, 256, H/32, W/32)
        conv5 = self.conv5_2(self.conv5_1(conv4))  # (N, 384, H/64, W/64)
        conv6 = self.conv6_2(self.conv6_1(conv5))  # (N, 512, H/128, W/128)
        return [conv2, conv3, conv4, conv5, conv6]


class FlowNetworkBuilder(Protocol):
    """Makes a flow network with random weights."""

    def __call__(self, maps: Sequence[FeatureMap] = ..., share: float = ...) -> FlowNetwork:
        """For these maps, with a share of the published channels."""
        ...


FLOW_NETWORKS: dict[str, FlowNetworkBuilder] = {
    "flownet": FlowNet,
    "flownet_half": FlowNetHalf,
    "flownet_inception": FlowNetInception,
}


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
        share: float = 1.0,
    ) -> None:
        """Build the branches.

        Args:
            inputs: Channels that come in.
            point: Channels of the 1x1 convolution; 0: no such branch.
            single: Channels of the 1x1 and 3x3 convolutions.
            double: Channels of the 1x1, 3x3 and 3x3 convolutions.
            pool: Channels of the 1x1 convolution after the pooling; 0: no such branch, and stride 1.
            share: Of all channels but `inputs`.
        """
        super().__init__()
        point, pool = _share(point, share), _share(pool, share)
        single = (_share(single[0], share), _share(single[1], share))
        double = (_share(double[0], share), _share(double[1], share), _share(double[2], share))
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
        """(N, inputs, H, W) -> (N, sum of the branches, H / stride, W / stride)."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def _share(channels: int, share: float) -> int:
    """So many of the channels, at least one; 0 of 0."""
    return max(round(channels * share), 1) if channels else 0


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution of half padding and its leaky ReLU."""
    return nn.Sequential(_initialised(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)), nn.LeakyReLU(SLOPE))


def _predict(inputs: int) -> nn.Conv2d:
    """The convolution that predicts flow; at first it predicts next to no motion."""
    layer = _initialised(nn.Conv2d(inputs, 2, 3, padding=1))
    nn.init.normal_(layer.weight, std=0.001)
    return layer


def _scale_field(inputs: int, channels: int) -> nn.Conv2d:
    """The convolution that gives a scale field, 1 at first (section 3)."""
    layer = nn.Conv2d(inputs, channels, 1)
    nn.init.zeros_(layer.weight)
    nn.init.ones_(layer.bias)  # type: ignore[arg-type]  # there is one: bias is True by default
    return layer


def _initialised(layer: Layer) -> Layer:
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # all have one
    return layer


def _crop(x: Tensor, height: int, width: int) -> Tensor:
    return x[..., 1 : height + 1, 1 : width + 1]
