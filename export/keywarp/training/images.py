"""Frames as the networks take them."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from keywarp.networks import IMAGE_MEAN


def normalised(frames: npt.NDArray[np.uint8]) -> Tensor:
    """(N, H, W, 3) RGB uint8 -> (N, 3, H, W) float32, mean-subtracted."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() - torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)
