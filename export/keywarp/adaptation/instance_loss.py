"""How far masks and keypoints of a detector's head are from the teacher's."""

from collections.abc import Mapping

import torch
from torch import Tensor

from keywarp.engines.comparison.objects import AREA, sigmas

LEAST_VARIANCE = 1e-6
_ROWS = ("mask_coefficients", "masks")  # outputs with a row per box; a map of all boxes is `mask_prototypes`


def instance_difference(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], weight: Tensor) -> Tensor:
    """Compare masks and keypoints.

    Args:
        found: The outputs on warped features, by name.
        wanted: The teacher's outputs.
        weight: How far each row is an object, (N, n), 0..1.

    Returns:
        The sum over all that there is of: the squared differences of the objects' coefficients or masks, in units of
        the teacher's variance; those of the prototypes, likewise; and what the keypoints lack of full similarity (OKS),
        weighted by the teacher's confidence, with the difference of the confidences. 0 if there is none of it.
    """
    total = weight.new_zeros(())
    objects = weight.sum(dim=1).clamp(min=1.0)
    for name in _ROWS:
        if name in wanted:
            error = (found[name] - wanted[name]).square().flatten(2).mean(dim=2) / _variance(wanted[name])
            total = total + ((weight * error).sum(dim=1) / objects).mean()
    if "mask_prototypes" in wanted:
        prototypes = wanted["mask_prototypes"]
        total = total + (found["mask_prototypes"] - prototypes).square().mean() / _variance(prototypes)
    if "keypoints" in wanted:
        lacking = _lacking(found["keypoints"], wanted["keypoints"], wanted["boxes"])
        total = total + ((weight * lacking).sum(dim=1) / objects).mean()
    return total


def _lacking(found: Tensor, wanted: Tensor, boxes: Tensor) -> Tensor:
    """Return what the keypoints of each row lack of the teacher's, (N, n)."""
    deviations = 2 * torch.tensor(sigmas(found.shape[2]), device=found.device, dtype=found.dtype)
    areas = AREA * (boxes[..., 2:] - boxes[..., :2]).clamp(min=1.0).prod(dim=-1, keepdim=True)
    squares = (found[..., :2] - wanted[..., :2]).square().sum(dim=-1)
    confidence = wanted[..., 2]
    apart = 1 - torch.exp(-squares / (2 * areas * deviations.square()))
    return (confidence * apart + (found[..., 2] - confidence).abs()).mean(dim=-1)


def _variance(values: Tensor) -> Tensor:
    return values.var().clamp(min=LEAST_VARIANCE)
