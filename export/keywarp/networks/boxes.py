"""The encoding of boxes relative to reference boxes, which a detector's box branches predict.

It is that of "Rich feature hierarchies for accurate object detection and semantic segmentation" (Girshick et al.,
2014), appendix C. Coordinates are continuous: a box covers x1 <= x < x2.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# the limit of dw and dh, which keeps exp finite: it enlarges an anchor of 16 pixels to the size of an image
MAX_LOG_RATIO = math.log(1000 / 16)
UNIT_STD = (1.0, 1.0, 1.0, 1.0)


def encode_boxes(boxes: Tensor, references: Tensor, std: Sequence[float] = UNIT_STD) -> Tensor:
    """Encode boxes as offsets from reference boxes.

    Args:
        boxes: (..., 4): x1, y1, x2, y2, of positive size.
        references: (..., 4): x1, y1, x2, y2, of positive size.
        std: The divisors of dx, dy, dw and dh.

    Returns:
        (..., 4): dx and dy, the distance between the centres in sizes of the reference; dw and dh, the logarithms of
        the ratios of sizes.
    """
    centre, size = _centre_and_size(boxes)
    reference_centre, reference_size = _centre_and_size(references)
    deltas = torch.cat(((centre - reference_centre) / reference_size, torch.log(size / reference_size)), dim=-1)
    return deltas / deltas.new_tensor(std)


def decode_boxes(deltas: Tensor, references: Tensor, std: Sequence[float] = UNIT_STD) -> Tensor:
    """Decode boxes: the inverse of `encode_boxes` as long as dw and dh are at most `MAX_LOG_RATIO`.

    Args:
        deltas: (..., 4): dx, dy, dw, dh.
        references: (..., 4): x1, y1, x2, y2.
        std: The divisors that dx, dy, dw and dh were encoded with.

    Returns:
        (..., 4): x1, y1, x2, y2.
    """
    reference_centre, reference_size = _centre_and_size(references)
    shift, log_ratio = (deltas * deltas.new_tensor(std)).chunk(2, dim=-1)
    centre = reference_centre + shift * reference_size
    half = torch.exp(log_ratio.clamp(max=MAX_LOG_RATIO)) * reference_size / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    first, last = boxes.chunk(2, dim=-1)
    size = last - first
    return first + size / 2, size
