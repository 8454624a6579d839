"""The head of "R-FCN: Object Detection via Region-based Fully Convolutional Networks" (Dai et al., 2016).

As section 4 of "Deep Feature Flow" places it on the features: region proposals from the first half of the channels,
detection from the second. What follows has no parameters: see `keywarp.networks.regions`.
"""

from typing import NamedTuple

from torch import Tensor, nn


class DetectionMaps(NamedTuple):
    """What the head's four layers say of every cell: A anchors, C + 1 classes, k x k bins of a region."""

    objectness: Tensor  # (N, 2A, H, W), before the softmax: background of each anchor, then foreground of each
    anchor_deltas: Tensor  # (N, 4A, H, W): dx, dy, dw, dh of the first anchor, then of the next
    class_maps: Tensor  # (N, k^2 (C+1), H, W), before the softmax: channel (row * k + column) * (C+1) + class
    box_maps: Tensor  # (N, 4 k^2, H, W): channel (row * k + column) * 4 + j for dx, dy, dw, dh


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


class DetectionOutputs(NamedTuple):
    """The maps as a bundle's head graph hands them over: channels last.

    So the host pools regions from contiguous memory, and runtimes that compute channels-last have nothing to reorder.
    """

    objectness: Tensor  # (N, H, W, A): see `log_odds`
    anchor_deltas: Tensor  # (N, H, W, 4A)
    class_maps: Tensor  # (N, H, W, k^2 (C+1))
    box_maps: Tensor  # (N, H, W, 4 k^2)


def detection_outputs(maps: DetectionMaps) -> DetectionOutputs:
    """The maps for the host."""
    odds = log_odds(maps.objectness)
    return DetectionOutputs(
        *(x.permute(0, 2, 3, 1) for x in (odds, maps.anchor_deltas, maps.class_maps, maps.box_maps))
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
