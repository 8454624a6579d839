"""Feature propagation: bilinear sampling along the flow, times the scale field (Eq. 1 to 3 of the paper)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from keywarp.networks.feature_maps import FeatureMap


def sample(features: Tensor, flow: Tensor) -> Tensor:
    """Sample key-frame features where the flow points (Eq. 1).

    Args:
        features: The key frame's features, (N, C, H, W).
        flow: (N, 2, H, W), (dx, dy) in cells: cell p of the result is sampled at p + flow(p) of the key frame.

    Returns:
        (N, C, H, W). Values are zero where the flow points outside the map. Along a side of one cell, the flow is
        ignored.
    """
    precise = torch.promote_types(flow.dtype, torch.float32)  # 16 bits can't address every cell of a wide map
    flow = flow.to(precise)
    height, width = features.shape[-2:]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype)
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)
    # align_corners: -1 and 1 are the centres of the first and last cell; a single cell has no extent to divide by
    u = (flow[:, 0] + x) / (x[-1:].clamp(min=1) / 2) - 1
    v = (flow[:, 1] + y.unsqueeze(1)) / (y[-1:].clamp(min=1) / 2) - 1
    grid = torch.stack((u, v), dim=-1)  # (N, H, W, 2)
    sampled = functional.grid_sample(
        features.to(precise), grid, mode="bilinear", padding_mode="zeros", align_corners=True
    )
    return sampled.to(features.dtype)


def stay_inside(flow: Tensor) -> Tensor:
    """Let a flow end at the map's border where it points out of the map.

    Args:
        flow: (N, 2, H, W), (dx, dy) in cells.
    """
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype)
    y = torch.arange(height, device=flow.device, dtype=flow.dtype).unsqueeze(1)
    dx = torch.minimum(torch.maximum(flow[:, 0], -x), x[-1:] - x)
    dy = torch.minimum(torch.maximum(flow[:, 1], -y), y[-1:] - y)
    return torch.stack((dx, dy), dim=1)


class Warp(nn.Module):
    """The propagation function W of Eq. 3: features, flow and scales -> propagated features.

    One flow moves all feature maps, whatever their strides.
    """

    def __init__(self, maps: Sequence[FeatureMap]) -> None:
        """Prepare to warp feature maps of the given strides.

        Args:
            maps: The feature maps to warp. The flow is in cells of the finest one.

        Raises:
            ValueError: If a stride isn't the finest stride times a power of 2.
        """
        super().__init__()
        finest = min(m.stride for m in maps)
        if any(m.stride % finest or (m.stride // finest).bit_count() != 1 for m in maps):
            raise ValueError(f"strides must be powers of 2 times the finest one, not {[m.stride for m in maps]}")
        self.factors = tuple(m.stride // finest for m in maps)  # of each map's stride to the finest

    def forward(self, features: Sequence[Tensor], flow: Tensor, scales: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Propagate key-frame features to the current frame.

        Args:
            features: The key frame's feature maps, each (N, C, H, W).
            flow: (N, 2, H, W), (dx, dy) in cells of the finest map.
            scales: The factors for every value, one tensor of the same shape for each map.
        """
        return tuple(
            sample(x, _downsample(flow, factor)) * scale
            for x, factor, scale in zip(features, self.factors, scales, strict=True)
        )


def _downsample(flow: Tensor, factor: int) -> Tensor:
    """Average a flow over blocks of `factor` x `factor` cells and express it in cells of that size."""
    while factor > 1:  # in steps of 2, so that sizes round up as in the feature network
        flow = functional.avg_pool2d(flow, 2, ceil_mode=True) / 2
        factor //= 2
    return flow
