"""Deep feature flow: the three networks as one module, for joint training on pairs of frames (Figure 2b)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from keywarp.networks.flownet import INPUT_DOWNSCALE, FlowNetInception
from keywarp.networks.heads import SegmentationHead
from keywarp.networks.resnet import ResNetFeatures
from keywarp.networks.warp import Warp


class DeepFeatureFlow(nn.Module):
    """Feature network, flow network and head."""

    def __init__(self, features: ResNetFeatures, flow: FlowNetInception, head: SegmentationHead) -> None:
        super().__init__()
        self.features = features
        self.flow = flow
        self.head = head
        self.warp = Warp()

    def forward(self, current: Tensor, key: Tensor, propagated: Tensor) -> Tensor:
        """Predict the current frames from the key frames' features.

        Args:
            current: (N, 3, H, W), mean-subtracted RGB in units of 0..255.
            key: Likewise. Where the two are the same frame, features aren't warped (i = k in the paper).
            propagated: (N,) bool: False where current and key are the same frame.

        Returns:
            (N, classes, ceil(H / 16), ceil(W / 16)), before the softmax.
        """
        features = self.features(key)
        motion = self.flow(half_size(current), half_size(key))
        warped = self.warp(features, motion.flow, motion.scale)
        return self.head.logits(torch.where(propagated.view(-1, 1, 1, 1), warped, features))


def half_size(image: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 3, ceil(H / 2), ceil(W / 2)): what the flow network sees of an image."""
    return functional.avg_pool2d(image, INPUT_DOWNSCALE, ceil_mode=True)
