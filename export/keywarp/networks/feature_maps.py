"""Feature maps: the output of a feature network, which is warped along the flow and read by the head."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FeatureMap:
    """The size of one feature map: (N, channels, ceil(H / stride), ceil(W / stride)) for images of (H, W) pixels."""

    channels: int
    stride: int  # image pixels per cell
