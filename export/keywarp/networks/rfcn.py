"""The head of "R-FCN: Object Detection via Region-based Fully Convolutional Networks" (Dai et al., 2016).

As in section 4 of "Deep Feature Flow", the first half of the channels serves region proposals, the second half
detection. The steps after the head have no parameters; they are in `keywarp.networks.regions`.
"""

from typing import NamedTuple

from torch import Tensor, nn

from keywarp.networks.heads import score_layer


class DetectionMaps(NamedTuple):
    """The outputs of the head's four layers for A anchors per cell, C + 1 classes and k x k bins per region."""

    objectness: Tensor  # (N, 2A, H, W), before the softmax: all anchors' background scores, then their foreground
    anchor_deltas: Tensor  # (N, 4A, H, W): dx, dy, dw, dh of the first anchor, then of the next
    class_maps: Tensor  # (N, k^2 (C+1), H, W), before the softmax: channel (row * k + column) * (C+1) + class
    box_maps: Tensor  # (N, 4 k^2, H, W): channel (row * k + column) * 4 + j for dx, dy, dw, dh


class RFCNHead(nn.Module):
    """R-FCN's head: a proposal and a detection branch, each of two 1x1 convolutions side by side."""

    def __init__(self, channels: int = 1024, classes: int = 31, pooling: int = 7, anchors: int = 9) -> None:
        """Build the head with random weights.

        Args:
            channels: The channels of the feature map. Each branch reads half of them.
            classes: The number of classes, including the background, which comes first (the paper's C + 1).
            pooling: k, the bins along each side of a region.
            anchors: A, the anchors per cell.

        Raises:
            ValueError: If the number of channels is odd.
        """
        super().__init__()
        if channels % 2:
            raise ValueError(f"each branch reads half of the channels, so their number must be even: {channels} is odd")
        self.classes = classes
        self.pooling = pooling
        self.anchors = anchors
        half, bins = channels // 2, pooling**2
        self.objectness = score_layer(half, 2 * anchors)
        self.anchor_deltas = score_layer(half, 4 * anchors)
        self.class_maps = score_layer(half, classes * bins)
        self.box_maps = score_layer(half, 4 * bins)

    def forward(self, features: Tensor) -> DetectionMaps:
        """Compute the four maps from features (N, channels, H, W)."""
        proposal, detection = features.chunk(2, dim=1)
        return DetectionMaps(
            self.objectness(proposal),
            self.anchor_deltas(proposal),
            self.class_maps(detection),
            self.box_maps(detection),
        )


class DetectionOutputs(NamedTuple):
    """The maps as outputs of a bundle's head graph, with the channels last.

    The host then pools regions from contiguous memory, and runtimes that compute channels-last need no transpose.
    """

    objectness: Tensor  # (N, H, W, A): log odds of foreground against background
    anchor_deltas: Tensor  # (N, H, W, 4A)
    class_maps: Tensor  # (N, H, W, k^2 (C+1))
    box_maps: Tensor  # (N, H, W, 4 k^2)


def detection_outputs(maps: DetectionMaps) -> DetectionOutputs:
    """Convert the head's maps into the bundle's layout."""
    odds = log_odds(maps.objectness)
    return DetectionOutputs(
        *(x.permute(0, 2, 3, 1) for x in (odds, maps.anchor_deltas, maps.class_maps, maps.box_maps))
    )


def log_odds(objectness: Tensor) -> Tensor:
    """Compute the log odds that each anchor holds an object. Proposals are ranked by them.

    Args:
        objectness: (N, 2A, H, W), as in `DetectionMaps`.

    Returns:
        (N, A, H, W). The sigmoid of a value is the softmax's foreground probability, so that the ranking is the same.
        Log odds don't saturate: in 16 bits, all probabilities from 0.998 on round to 1.
    """
    background, foreground = objectness.chunk(2, dim=1)
    return foreground - background
