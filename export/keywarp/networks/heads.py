"""The segmentation head, and the layer that all heads are built of."""

from torch import Tensor, nn


class SegmentationHead(nn.Module):
    """A 1x1 convolution to one score map for each class and the background (section 4)."""

    def __init__(self, channels: int, classes: int) -> None:
        """Build the head with random weights, initialised as in the paper.

        Args:
            channels: The channels of the feature map.
            classes: The number of classes, including the background (the paper's C + 1).
        """
        super().__init__()
        self.score = score_layer(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return the scores before the softmax: (N, channels, H, W) -> (N, classes, H, W)."""
        scores: Tensor = self.score(features)
        return scores


def score_layer(channels: int, outputs: int) -> nn.Conv2d:
    """Build a 1x1 convolution with random weights, initialised as in the paper.

    Args:
        channels: The input channels.
        outputs: The output channels.
    """
    layer = nn.Conv2d(channels, outputs, 1)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is one: bias is True by default
    return layer
