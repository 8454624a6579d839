"""Deep feature flow: the three networks as one module, for joint training on pairs of frames (Figure 2b)."""

from typing import Generic

import torch
from torch import Tensor, nn
from torch.nn import functional

from keywarp.networks.flownet import INPUT_DOWNSCALE, FlowNetwork
from keywarp.networks.recognition import Raw, RecognitionNetwork
from keywarp.networks.warp import Warp


class DeepFeatureFlow(nn.Module, Generic[Raw]):
    """A recognition network, and the flow network that spares most of it."""

    def __init__(self, recognition: RecognitionNetwork[Raw], flow: FlowNetwork) -> None:
        """Join the two.

        Raises:
            ValueError: The flow network is for other feature maps.
        """
        super().__init__()
        if flow.maps != recognition.maps:
            raise ValueError(f"the flow network is for {flow.maps}, the recognition network has {recognition.maps}")
        self.recognition = recognition
        self.flow = flow
        self.warp = Warp(recognition.maps)

    def forward(self, current: Tensor, key: Tensor, propagated: Tensor) -> Raw:
        """Predict the current frames from the key frames' features.

        Args:
            current: (N, 3, H, W), mean-subtracted RGB in units of 0..255.
            key: Likewise. Where the two are the same frame, features aren't warped (i = k in the paper).
            propagated: (N,) bool: False where current and key are the same frame.

        Returns:
            What the recognition network's head yields to a loss.
        """
        features = self.features(key)
        chosen = propagated.view(-1, 1, 1, 1)
        warped = self.propagate(features, current, key)
        return self.recognition.head(*(torch.where(chosen, w, f) for w, f in zip(warped, features, strict=True)))

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """N_feat of mean-subtracted images (N, 3, H, W): divides by the recognition network's std first."""
        std = torch.tensor(self.recognition.std, device=image.device, dtype=image.dtype).view(1, 3, 1, 1)
        return self.recognition.features(image / std)

    def propagate(self, features: tuple[Tensor, ...], current: Tensor, key: Tensor) -> tuple[Tensor, ...]:
        """Warp the key frame's features to the current frame (Algorithm 1, line 11).

        Args:
            features: Of the key frame.
            current: (N, 3, H, W), mean-subtracted RGB in units of 0..255.
            key: Likewise.
        """
        motion = self.flow(half_size(current), half_size(key))
        warped: tuple[Tensor, ...] = self.warp(features, motion.flow, motion.scales)
        return warped


def half_size(image: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 3, ceil(H / 2), ceil(W / 2)): what the flow network sees of an image."""
    return functional.avg_pool2d(image, INPUT_DOWNSCALE, ceil_mode=True)
