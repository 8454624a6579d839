"""Deep feature flow: the three networks as one module, for joint training on pairs of frames (Figure 2b)."""

from typing import Generic

import torch
from torch import Tensor, nn
from torch.nn import functional

from keywarp.networks.flownet import INPUT_DOWNSCALE, FlowNetwork
from keywarp.networks.recognition import Raw, RecognitionNetwork
from keywarp.networks.warp import Warp


class DeepFeatureFlow(nn.Module, Generic[Raw]):
    """A recognition network together with the flow network that propagates its features."""

    def __init__(self, recognition: RecognitionNetwork[Raw], flow: FlowNetwork) -> None:
        """Combine a recognition network and a flow network.

        Raises:
            ValueError: If the flow network was built for other feature maps.
        """
        super().__init__()
        if flow.maps != recognition.maps:
            raise ValueError(
                f"the flow network is for feature maps {flow.maps}, but the recognition network has "
                f"{recognition.maps}; build the flow network with the recognition network's `maps`"
            )
        self.recognition = recognition
        self.flow = flow
        self.warp = Warp(recognition.maps)

    def forward(self, current: Tensor, key: Tensor, propagated: Tensor) -> Raw:
        """Predict the current frames from the key frames' features.

        Args:
            current: The current frames, (N, 3, H, W): RGB in units of 0..255, less the image mean.
            key: The key frames, of the same shape and in the same units.
            propagated: Whether each sample's features are warped, (N,) bool. False where current and key are the same
                frame (i = k in the paper).

        Returns:
            The raw output of the recognition network's head, as a loss takes it.
        """
        features = self.features(key)
        chosen = propagated.view(-1, 1, 1, 1)
        warped = self.propagate(features, current, key)
        return self.recognition.head(*(torch.where(chosen, w, f) for w, f in zip(warped, features, strict=True)))

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Run the feature network.

        Args:
            image: (N, 3, H, W): RGB in units of 0..255, less the image mean. It is divided by the recognition network's
                `std` here.
        """
        std = torch.tensor(self.recognition.std, device=image.device, dtype=image.dtype).view(1, 3, 1, 1)
        return self.recognition.features(image / std)

    def propagate(self, features: tuple[Tensor, ...], current: Tensor, key: Tensor) -> tuple[Tensor, ...]:
        """Warp the key frames' features to the current frames (Algorithm 1, line 11).

        Args:
            features: The feature maps of the key frames.
            current: The current frames, (N, 3, H, W): RGB in units of 0..255, less the image mean.
            key: The key frames, of the same shape and in the same units.
        """
        motion = self.flow(half_size(current), half_size(key))
        warped: tuple[Tensor, ...] = self.warp(features, motion.flow, motion.scales)
        return warped


def half_size(image: Tensor) -> Tensor:
    """Average-pool images for the flow network: (N, 3, H, W) -> (N, 3, ceil(H / 2), ceil(W / 2))."""
    return functional.avg_pool2d(image, INPUT_DOWNSCALE, ceil_mode=True)
