"""An image network cut in two: what runs on key frames only, and what runs on every frame (section 3 of the paper)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from keywarp.choices import Task as Task
from keywarp.networks.feature_maps import FeatureMap
from keywarp.networks.heads import SegmentationHead
from keywarp.networks.pretrained import IMAGE_MEAN
from keywarp.networks.regions import RegionOptions
from keywarp.networks.resnet import FEATURE_STRIDE, ResNetFeatures
from keywarp.networks.rfcn import DetectionMaps, RFCNHead, detection_outputs

Raw = TypeVar("Raw")
Unit = Callable[[Tensor], Tensor]


class RecognitionNetwork(nn.Module, ABC, Generic[Raw]):
    """The paper's N = N_task after N_feat. `Raw` is what N_task yields to a loss.

    Attributes:
        task: What it recognises.
        maps: The feature maps between the two parts.
        outputs: The names of what `predict` returns, as the bundle's head has them.
        mean: Of the image, RGB in units of 0..255.
        std: Likewise; the network sees (image - mean) / std.
        multiple: Image sides are multiples of this, pixels.
    """

    task: Task
    maps: tuple[FeatureMap, ...]
    outputs: tuple[str, ...]
    mean: tuple[float, float, float] = IMAGE_MEAN
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    multiple: int = 1

    @abstractmethod
    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """N_feat: (N, 3, H, W), normalised -> the feature maps."""

    @abstractmethod
    def head(self, *features: Tensor) -> Raw:
        """N_task: feature maps, of this frame or warped to it -> what a loss wants."""

    @abstractmethod
    def predict(self, raw: Raw) -> tuple[Tensor, ...]:
        """What the bundle's head yields, without parameters: probabilities from scores."""

    def forward(self, image: Tensor) -> Raw:
        """Per-frame evaluation (Figure 2a)."""
        return self.head(*self.features(image))


class SplitNetwork(RecognitionNetwork[Raw]):
    """A ResNet and the paper's head for a task, cut where the option says (Table 5)."""

    def __init__(self, backbone: ResNetFeatures, head: nn.Module, head_maps: int, head_layers: int) -> None:
        """Cut the network.

        Args:
            backbone: The ResNet with its reduction.
            head: The task's 1x1 convolutions.
            head_maps: Channels of all that they yield.
            head_layers: Layers with weights that run on every frame. 1 is the paper's default, the head alone; 0 warps
                the score maps; 5 adds the reduction and conv5c, 12 the rest of conv5, 21 three units of conv4.

        Raises:
            ValueError: There is no cut between two units that leaves so many layers.
        """
        super().__init__()
        self.backbone = backbone
        self.task_head = head
        self.head_layers = head_layers
        blocks = backbone.bottlenecks()
        # From the image to the scores: (layers, channels) of what follows the stem. A projection is a layer, too.
        units = [(3 + isinstance(block.downsample, nn.Sequential), block.outputs) for block in blocks]
        units += [(1, backbone.options.channels), (1, head_maps)]
        cuts = {sum(layers for layers, _ in units[n:]): n for n in range(_stride_reached(blocks), len(units) + 1)}
        if head_layers not in cuts:
            possible = ", ".join(map(str, sorted(cuts)))
            raise ValueError(
                f"the head can't have {head_layers} layers, since units aren't cut; it can have {possible}"
            )
        self._cut = cuts[head_layers]
        self.maps = (FeatureMap(units[self._cut - 1][1], FEATURE_STRIDE),)

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) -> the map at the cut, (N, C, ceil(H / 16), ceil(W / 16))."""
        x = self.backbone.stem(image)
        for unit in self._units()[: self._cut]:
            x = unit(x)
        return (x,)

    def head(self, *features: Tensor) -> Raw:
        """The units after the cut."""
        (x,) = features
        for unit in self._units()[self._cut :]:
            x = unit(x)
        return self.unpack(x)

    @abstractmethod
    def pack(self, raw: Raw) -> Tensor:
        """All score maps as one, to be warped as one where the head has 0 layers."""

    @abstractmethod
    def unpack(self, scores: Tensor) -> Raw:
        """The inverse of `pack`."""

    def _units(self) -> list[Unit]:
        return [*self.backbone.bottlenecks(), self.backbone.reduce, lambda x: self.pack(self.task_head(x))]


class SegmentationNetwork(SplitNetwork[Tensor]):
    """A ResNet with a score map per class: `head` yields (N, classes, H/16, W/16), before the softmax."""

    task: Task = "segmentation"
    outputs = ("scores",)

    def __init__(self, backbone: ResNetFeatures, classes: int, head_layers: int = 1) -> None:
        """Build the head; see `SplitNetwork`.

        Args:
            backbone: The ResNet.
            classes: With the background (the paper's C + 1).
            head_layers: See `SplitNetwork`.
        """
        super().__init__(backbone, SegmentationHead(backbone.options.channels, classes), classes, head_layers)

    def pack(self, raw: Tensor) -> Tensor:
        """There is one map already."""
        return raw

    def unpack(self, scores: Tensor) -> Tensor:
        """There is one map."""
        return scores

    def predict(self, raw: Tensor) -> tuple[Tensor, ...]:
        """Probabilities."""
        return (torch.softmax(raw, dim=1),)


class DetectionNetwork(SplitNetwork[DetectionMaps]):
    """A ResNet with R-FCN's maps; see `RFCNHead`."""

    task: Task = "detection"
    outputs = ("objectness", "anchor_deltas", "class_maps", "box_maps")

    def __init__(
        self, backbone: ResNetFeatures, classes: int, head_layers: int = 1, regions: RegionOptions | None = None
    ) -> None:
        """Build the head; see `SplitNetwork`.

        Args:
            backbone: The ResNet.
            classes: With the background (the paper's C + 1).
            head_layers: See `SplitNetwork`.
            regions: How boxes come out of the maps, and so how many of these there are; None: as in the paper.
        """
        self.regions = regions = regions or RegionOptions()
        anchors = len(regions.anchor_ratios) * len(regions.anchor_scales)
        head = RFCNHead(backbone.options.channels, classes, regions.pooling, anchors)
        bins = regions.pooling**2
        self._channels = [2 * anchors, 4 * anchors, classes * bins, 4 * bins]
        super().__init__(backbone, head, sum(self._channels), head_layers)

    def pack(self, raw: DetectionMaps) -> Tensor:
        """The four maps, one after the other."""
        return torch.cat(raw, dim=1)

    def unpack(self, scores: Tensor) -> DetectionMaps:
        """Cut the channels."""
        return DetectionMaps(*torch.split(scores, self._channels, dim=1))

    def predict(self, raw: DetectionMaps) -> tuple[Tensor, ...]:
        """The maps in the layout of the bundle's head; see `DetectionOutputs`."""
        return detection_outputs(raw)


def _stride_reached(blocks: Sequence[nn.Module]) -> int:
    """How many blocks it takes until the features have their final stride."""
    strided = [n for n, block in enumerate(blocks) if any(s != 1 for s in _strides(block))]
    return strided[-1] + 1


def _strides(block: nn.Module) -> list[int]:
    return [module.stride[0] for module in block.modules() if isinstance(module, nn.Conv2d)]
