"""Recognition networks in two parts: one runs on key frames only, the other on every frame (section 3 of the paper)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from keywarp.choices import ServedTask
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
    """The paper's N: the head N_task on top of the feature network N_feat. `Raw` is N_task's output as a loss takes it.

    Attributes:
        task: The task.
        maps: The feature maps between the two parts.
        outputs: The names of the values that `predict` returns, as in the bundle's head graph.
        mean: The image mean, RGB in units of 0..255.
        std: The image's standard deviation, RGB in units of 0..255. The network sees (image - mean) / std.
        multiple: The number of pixels of which the image's sides must be multiples.
    """

    task: ServedTask
    maps: tuple[FeatureMap, ...]
    outputs: tuple[str, ...]
    mean: tuple[float, float, float] = IMAGE_MEAN
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    multiple: int = 1

    @abstractmethod
    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Run N_feat on a normalised image (N, 3, H, W) and return the feature maps."""

    @abstractmethod
    def head(self, *features: Tensor) -> Raw:
        """Run N_task on feature maps, whether computed on this frame or warped to it."""

    @abstractmethod
    def predict(self, raw: Raw) -> tuple[Tensor, ...]:
        """Convert the head's raw output into the outputs of the bundle's head, such as scores into probabilities.

        It has no parameters.
        """

    def forward(self, image: Tensor) -> Raw:
        """Evaluate the network per frame (Figure 2a)."""
        return self.head(*self.features(image))


class SplitNetwork(RecognitionNetwork[Raw]):
    """A ResNet and the paper's head for a task, split into feature network and head at a chosen layer (Table 5)."""

    def __init__(self, backbone: ResNetFeatures, head: nn.Module, head_maps: int, head_layers: int) -> None:
        """Split the network.

        Args:
            backbone: The ResNet with its reduction.
            head: The task's 1x1 convolutions.
            head_maps: The total number of channels that `head` returns.
            head_layers: The number of layers with weights that run on every frame. With 1, the paper's default, this is
                the head alone; with 0, the score maps are warped. 5 adds the reduction and conv5c, 12 the rest of
                conv5, and 21 three units of conv4.

        Raises:
            ValueError: If no possible split leaves that number of layers after it.
        """
        super().__init__()
        self.backbone = backbone
        self.task_head = head
        self.head_layers = head_layers
        blocks = backbone.bottlenecks()
        # (layers, channels) of each unit after the stem, from the image to the scores; a projection counts as a layer
        units = [(3 + isinstance(block.downsample, nn.Sequential), block.outputs) for block in blocks]
        units += [(1, backbone.options.channels), (1, head_maps)]
        splits = {sum(layers for layers, _ in units[n:]): n for n in range(_stride_reached(blocks), len(units) + 1)}
        if head_layers not in splits:
            possible = ", ".join(map(str, sorted(splits)))
            raise ValueError(
                f"the head can't have {head_layers} layers: a split must lie between two units, and after the last one "
                f"with a stride; choose one of {possible}"
            )
        self._split = splits[head_layers]
        self.maps = (FeatureMap(units[self._split - 1][1], FEATURE_STRIDE),)

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute the map at the split, (N, C, ceil(H / 16), ceil(W / 16)), from an image (N, 3, H, W)."""
        x = self.backbone.stem(image)
        for unit in self._units()[: self._split]:
            x = unit(x)
        return (x,)

    def head(self, *features: Tensor) -> Raw:
        """Run the units after the split."""
        (x,) = features
        for unit in self._units()[self._split :]:
            x = unit(x)
        return self.unpack(x)

    @abstractmethod
    def pack(self, raw: Raw) -> Tensor:
        """Concatenate all score maps, so that they can be warped as one map if the head has 0 layers."""

    @abstractmethod
    def unpack(self, scores: Tensor) -> Raw:
        """Invert `pack`."""

    def _units(self) -> list[Unit]:
        return [*self.backbone.bottlenecks(), self.backbone.reduce, lambda x: self.pack(self.task_head(x))]


class SegmentationNetwork(SplitNetwork[Tensor]):
    """A ResNet with a score map for each class. `head` returns (N, classes, H/16, W/16), before the softmax."""

    task: Task = "segmentation"
    outputs = ("scores",)

    def __init__(self, backbone: ResNetFeatures, classes: int, head_layers: int = 1) -> None:
        """Build the head and split the network.

        Args:
            backbone: The ResNet.
            classes: The number of classes, including the background (the paper's C + 1).
            head_layers: The number of layers that run on every frame, as for `SplitNetwork`.
        """
        super().__init__(backbone, SegmentationHead(backbone.options.channels, classes), classes, head_layers)

    def pack(self, raw: Tensor) -> Tensor:
        """Return the score maps, which are a single map already."""
        return raw

    def unpack(self, scores: Tensor) -> Tensor:
        """Return the score maps, which are a single map already."""
        return scores

    def predict(self, raw: Tensor) -> tuple[Tensor, ...]:
        """Convert scores to probabilities."""
        return (torch.softmax(raw, dim=1),)


class DetectionNetwork(SplitNetwork[DetectionMaps]):
    """A ResNet with R-FCN's head (`RFCNHead`)."""

    task: Task = "detection"
    outputs = ("objectness", "anchor_deltas", "class_maps", "box_maps")

    def __init__(
        self, backbone: ResNetFeatures, classes: int, head_layers: int = 1, regions: RegionOptions | None = None
    ) -> None:
        """Build the head and split the network.

        Args:
            backbone: The ResNet.
            classes: The number of classes, including the background (the paper's C + 1).
            head_layers: The number of layers that run on every frame, as for `SplitNetwork`.
            regions: How objects are found from the head's maps, or None for the paper's options. They also determine
                the number of channels of these maps.
        """
        self.regions = regions = regions or RegionOptions()
        anchors = len(regions.anchor_ratios) * len(regions.anchor_scales)
        head = RFCNHead(backbone.options.channels, classes, regions.pooling, anchors)
        bins = regions.pooling**2
        self._channels = [2 * anchors, 4 * anchors, classes * bins, 4 * bins]
        super().__init__(backbone, head, sum(self._channels), head_layers)

    def pack(self, raw: DetectionMaps) -> Tensor:
        """Concatenate the four maps."""
        return torch.cat(raw, dim=1)

    def unpack(self, scores: Tensor) -> DetectionMaps:
        """Split the channels into the four maps."""
        return DetectionMaps(*torch.split(scores, self._channels, dim=1))

    def predict(self, raw: DetectionMaps) -> tuple[Tensor, ...]:
        """Convert the maps to the layout of the bundle's head (`DetectionOutputs`)."""
        return detection_outputs(raw)


def _stride_reached(blocks: Sequence[nn.Module]) -> int:
    """Return the number of blocks after which the features have their final stride."""
    strided = [n for n, block in enumerate(blocks) if any(s != 1 for s in _strides(block))]
    return strided[-1] + 1


def _strides(block: nn.Module) -> list[int]:
    return [module.stride[0] for module in block.modules() if isinstance(module, nn.Conv2d)]
