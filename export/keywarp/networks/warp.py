"""Feature propagation: bilinear sampling along the flow, times the scale field (Eq. 1 to 3 of the paper)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from keywarp.networks.feature_maps import FeatureMap


def sample(features: Tensor, flow: Tensor) -> Tensor:
    """Sample key-frame features where the flow points (Eq. 1).

    Args:
        features: (N, C, H, W), of the key frame.
        flow: (N, 2, H, W), (dx, dy) in cells: cell p of the result comes from p + flow(p) of the key frame.

    Returns:
        (N, C, H, W); zero where the flow points outside. Along a side of one cell there is no motion.
    """
    precise = torch.promote_types(flow.dtype, torch.float32)  # in 16 bits, cells of a wide map can't be told apart
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


class Warp(nn.Module):
    """W of Eq. 3: features, flow, scales -> propagated features. One flow moves all maps, whatever their strides."""

    def __init__(self, maps: Sequence[FeatureMap]) -> None:
        """Learn the strides.

        Args:
            maps: What is warped. The flow is in cells of the finest of them.

        Raises:
            ValueError: A stride isn't the finest one times a power of 2.
        """
        super().__init__()
        finest = min(m.stride for m in maps)
        if any(m.stride % finest or (m.stride // finest).bit_count() != 1 for m in maps):
            raise ValueError(f"strides must be the finest one times powers of 2, got {[m.stride for m in maps]}")
        self.coarser = tuple(m.stride // finest for m in maps)  # cells of the finest map along one of this map

    def forward(self, features: Sequence[Tensor], flow: Tensor, scales: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Propagate key-frame features to the current frame.

        Args:
            features: Per map (N, C, H, W), of the key frame.
            flow: (N, 2, H, W), (dx, dy) in cells of the finest map.
            scales: Per map (N, C, H, W), the factor for every value.
        """
        return tuple(
            sample(x, _coarse(flow, factor)) * scale
            for x, factor, scale in zip(features, self.coarser, scales, strict=True)
        )


def _coarse(flow: Tensor, factor: int) -> Tensor:
    """A flow at `factor` times its stride, in cells of that; mean motion of the cells that a larger one covers."""
    while factor > 1:  # in steps of 2, so that sizes round up as strides do
        flow = functional.avg_pool2d(flow, 2, ceil_mode=True) / 2
        factor //= 2
    return flow
