"""Conversion of frames to the networks' input."""

import torch
from torch import Tensor

from keywarp.networks import IMAGE_MEAN


def normalised(frames: Tensor) -> Tensor:
    """Subtract the mean from frames.

    Args:
        frames: uint8 RGB (N, H, W, 3).

    Returns:
        float32 (N, 3, H, W). Channels are last in memory, since convolutions are faster that way.
    """
    mean = torch.tensor(IMAGE_MEAN, device=frames.device)
    return (frames.float() - mean).permute(0, 3, 1, 2)
