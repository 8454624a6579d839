"""Feature maps: what a feature network yields, a flow network moves and a head reads."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FeatureMap:
    """The size of one feature map: (N, channels, ceil(H / stride), ceil(W / stride)) for images of (H, W)."""

    channels: int
    stride: int  # image pixels per cell
