"""How far a head's dense map on warped features is from its map on the teacher's."""

import torch
from torch import Tensor

LEAST_SPREAD = 1e-6  # of the teacher's values, by which distances are divided


def value_difference(found: Tensor, wanted: Tensor) -> Tensor:
    """Compare two dense maps in units of the teacher's spread, so that neither factor nor offset of its values matters.

    The distances aren't squared: where something appears from behind an object, values are wrong by the whole depth of
    the scene whatever the flow does, and squares would teach about little else. Distances of the steps from one value
    to the next, in both directions, are added (as in Li and Snavely, MegaDepth, 2018), so that contours stay sharp.

    Args:
        found: The map on warped features, (N, 1, h, w).
        wanted: The teacher's map.

    Returns:
        The mean distance, 0 or more.
    """
    spread = (wanted - wanted.mean()).abs().mean().clamp(min=LEAST_SPREAD)
    distance = (found - wanted) / spread
    steps = [distance.diff(dim=dim).abs().mean() for dim in (2, 3) if distance.shape[dim] > 1]
    return torch.stack([distance.abs().mean(), *steps]).sum()
