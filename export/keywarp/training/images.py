"""Frames as the networks take them."""

import torch
from torch import Tensor

from keywarp.networks import IMAGE_MEAN


def normalised(frames: Tensor) -> Tensor:
    """(N, H, W, 3) RGB uint8 -> (N, 3, H, W) float32, mean-subtracted; in memory channels come last, which is fast."""
    mean = torch.tensor(IMAGE_MEAN, device=frames.device)
    return (frames.float() - mean).permute(0, 3, 1, 2)
