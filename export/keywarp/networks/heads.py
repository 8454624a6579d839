"""The task head of segmentation: what is left to do on every frame's features."""

from torch import Tensor, nn


class SegmentationHead(nn.Module):
    """One 1x1 convolution to a score map per class and the background (section 4)."""

    def __init__(self, channels: int, classes: int) -> None:
        """Build it, as the paper randomly initialised.

        Args:
            channels: Of the feature map.
            classes: With the background (the paper's C + 1).
        """
        super().__init__()
        self.score = nn.Conv2d(channels, classes, 1)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]  # there is one: bias is True by default

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, classes, H, W), before the softmax."""
        scores: Tensor = self.score(features)
        return scores
