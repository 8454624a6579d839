"""The head of "R-FCN: Object Detection via Region-based Fully Convolutional Networks" (Dai et al., 2016).

As section 4 of "Deep Feature Flow" places it on the features: region proposals from the first half of the channels,
detection from the second. What follows has no parameters: see `keywarp.networks.regions`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class DetectionMaps(NamedTuple):
    """What the head's four layers say of every cell: A anchors, C + 1 classes, k x k bins of a region."""

    objectness: Tensor  # (N, 2A, H, W), before the softmax: background of each anchor, then foreground of each
    anchor_deltas: Tensor  # (N, 4A, H, W): dx, dy, dw, dh of the first anchor, then of the next
    class_maps: Tensor  # (N, (C+1) k^2, H, W), before the softmax: channel class * k^2 + row * k + column
    box_maps: Tensor  # (N, 4 k^2, H, W): channel j * k^2 + row * k + column for dx, dy, dw, dh


class RFCNHead(nn.Module):
    """Two branches of two sibling 1x1 convolutions each."""

    def __init__(self, channels: int = 1024, classes: int = 31, pooling: int = 7, anchors: int = 9) -> None:
        """Build it, randomly initialised.

        Args:
            channels: Of the feature map; each branch reads half of them.
            classes: With the background, which is the first (the paper's C + 1).
            pooling: k, the bins along each side of a region.
            anchors: A, per cell.

        Raises:
            ValueError: The channels can't be halved.
        """
        super().__init__()
        if channels % 2:
            raise ValueError(f"each branch reads half of the channels: {channels} is odd")
        self.classes = classes
        self.pooling = pooling
        self.anchors = anchors
        half, bins = channels // 2, pooling**2
        self.objectness = _score(half, 2 * anchors)
        self.anchor_deltas = _score(half, 4 * anchors)
        self.class_maps = _score(half, classes * bins)
        self.box_maps = _score(half, 4 * bins)

    def forward(self, features: Tensor) -> DetectionMaps:
        """(N, channels, H, W) -> the four maps."""
        proposal, detection = features.chunk(2, dim=1)
        return DetectionMaps(
            self.objectness(proposal),
            self.anchor_deltas(proposal),
            self.class_maps(detection),
            self.box_maps(detection),
        )


class RegionOutputs(NamedTuple):
    """The maps as a bundle's head graph hands them over: channels last, and of a bin all classes side by side.

    So the host pools regions from contiguous memory, and runtimes that compute channels-last have nothing to reorder.
    """

    objectness: Tensor  # (N, H, W, A): see `log_odds`
    anchor_deltas: Tensor  # (N, H, W, 4A): channel 4 anchor + j
    class_maps: Tensor  # (N, H, W, k^2 (C+1)): channel bin * (C+1) + class, bin = row * k + column
    box_maps: Tensor  # (N, H, W, 4 k^2): channel 4 bin + j


class RegionGraph(nn.Module):
    """An `RFCNHead` as a bundle's head graph computes it: the same weights, rearranged."""

    def __init__(self, head: RFCNHead) -> None:
        """Copy the head's weights."""
        super().__init__()
        self.objectness = head.objectness
        self.anchor_deltas = head.anchor_deltas
        self.class_maps = _bins_first(head.class_maps, head.pooling**2)
        self.box_maps = _bins_first(head.box_maps, head.pooling**2)

    def forward(self, features: Tensor) -> RegionOutputs:
        """(N, channels, H, W) -> the four maps, channels last."""
        proposal, detection = features.chunk(2, dim=1)
        return RegionOutputs(
            log_odds(self.objectness(proposal)).permute(0, 2, 3, 1),
            self.anchor_deltas(proposal).permute(0, 2, 3, 1),
            self.class_maps(detection).permute(0, 2, 3, 1),
            self.box_maps(detection).permute(0, 2, 3, 1),
        )


def log_odds(objectness: Tensor) -> Tensor:
    """How likely the anchors are objects: what proposals are ranked by.

    Args:
        objectness: (N, 2A, H, W), as in `DetectionMaps`.

    Returns:
        (N, A, H, W). Its sigmoid is the softmax's foreground probability. Both give the same ranking, but this doesn't
        saturate: in 16 bits, all probabilities from 0.998 on round to 1.
    """
    background, foreground = objectness.chunk(2, dim=1)
    return foreground - background


def _score(inputs: int, outputs: int) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, 1)
    nn.init.normal_(convolution.weight, std=0.01)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]  # there is one: bias is True by default
    return convolution


def _bins_first(convolution: nn.Conv2d, bins: int) -> nn.Conv2d:
    """The convolution with its outputs reordered from (values, bins) to (bins, values)."""
    order = torch.arange(convolution.out_channels).view(-1, bins).T.flatten()
    reordered = nn.Conv2d(convolution.in_channels, convolution.out_channels, 1)
    reordered.load_state_dict({name: value[order] for name, value in convolution.state_dict().items()})
    return reordered
