"""Feature propagation: bilinear sampling along the flow, times the scale field (Eq. 1 to 3 of the paper)."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def sample(features: Tensor, flow: Tensor) -> Tensor:
    """Sample key-frame features where the flow points (Eq. 1).

    Args:
        features: (N, C, H, W), of the key frame.
        flow: (N, 2, H, W), (dx, dy) in cells: cell p of the result comes from p + flow(p) of the key frame.

    Returns:
        (N, C, H, W); zero where the flow points outside.
    """
    height, width = features.shape[-2:]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype)
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)
    # align_corners: -1 and 1 are the centres of the first and last cell; a single cell has no extent to divide by
    u = (flow[:, 0] + x) / (x[-1:].clamp(min=1) / 2) - 1
    v = (flow[:, 1] + y.unsqueeze(1)) / (y[-1:].clamp(min=1) / 2) - 1
    grid = torch.stack((u, v), dim=-1)  # (N, H, W, 2)
    return functional.grid_sample(features, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


class Warp(nn.Module):
    """W of Eq. 3: features, flow, scale -> propagated features."""

    def forward(self, features: Tensor, flow: Tensor, scale: Tensor) -> Tensor:
        """Propagate key-frame features to the current frame.

        Args:
            features: (N, C, H, W), of the key frame.
            flow: (N, 2, H, W), (dx, dy) in cells.
            scale: (N, C, H, W), the factor for every value.
        """
        return sample(features, flow) * scale
