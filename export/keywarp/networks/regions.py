"""From an R-FCN head's maps to objects: proposals, position-sensitive pooling, voting, suppression (section 4).

Nothing here has parameters. Where sums and exponentials decide which box stays, they are computed in double precision:
their result as a float doesn't depend on the order of summation or the library then, so the engine's own implementation
and this one take the same decisions.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import clip_boxes_to_image, nms, ps_roi_pool

from keywarp.networks.anchors import base_anchors, grid_anchors
from keywarp.networks.boxes import UNIT_STD, decode_boxes
from keywarp.networks.rfcn import DetectionMaps, log_odds


@dataclass(frozen=True)
class RegionOptions:
    """How regions are proposed, pooled and reported. The defaults are the paper's where it says."""

    stride: int = 16  # image pixels per cell of the maps
    anchor_base: int = 16  # pixels: the side that the scales multiply
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width
    anchor_scales: tuple[float, ...] = (8.0, 16.0, 32.0)
    candidates: int = 6000  # of the anchors, the best that enter the suppression
    proposals: int = 300  # that leave it
    proposal_iou: float = 0.7  # of two proposals above this, one stays
    pooling: int = 7  # k: bins along each side of a region
    box_std: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)  # of dx, dy, dw, dh in the box maps
    threshold: float = 0.05  # lowest score that is reported
    iou: float = 0.3  # of two objects of one class above this, one stays
    limit: int = 100  # objects reported at most


class RegionVotes(NamedTuple):
    """What the bins of R regions say on average."""

    class_logits: Tensor  # (R, C+1), before the softmax
    box_deltas: Tensor  # (R, 4): dx, dy, dw, dh in units of `box_std`


class Objects(NamedTuple):
    """What is found on one image, the most certain first."""

    boxes: Tensor  # (n, 4): x1, y1, x2, y2 in pixels
    scores: Tensor  # (n,), 0..1
    labels: Tensor  # (n,), int64, never the background


@torch.no_grad()
def propose(maps: DetectionMaps, height: int, width: int, options: RegionOptions) -> list[Tensor]:
    """The region proposal network's boxes, the most likely first.

    Equally likely ones are in the order of the anchors. Where a score or delta isn't a number, nothing is proposed.

    Args:
        maps: Of N images.
        height: Of the images, pixels.
        width: Of the images, pixels.
        options: See `RegionOptions`.

    Returns:
        For each image (P, 4), P <= options.proposals: x1, y1, x2, y2 in pixels, inside the image, not empty.

    Raises:
        ValueError: The maps are of another number of anchors than the options.
    """
    rows, columns = maps.objectness.shape[-2:]
    base = base_anchors(options.anchor_base, options.anchor_ratios, options.anchor_scales).to(maps.anchor_deltas)
    anchors = grid_anchors(base, rows, columns, options.stride)
    scores = log_odds(maps.objectness).permute(0, 2, 3, 1).flatten(1)  # (N, H W A)
    if scores.shape[1] != len(anchors):
        raise ValueError(
            f"the options make {len(base)} anchors per cell, the maps have {maps.objectness.shape[1] // 2}"
        )
    deltas = maps.anchor_deltas.permute(0, 2, 3, 1).reshape(len(scores), -1, 4)
    proposals = []
    for image_scores, image_deltas in zip(scores, deltas, strict=True):
        valid = torch.nonzero(~image_scores.isnan()).squeeze(1)
        best = valid[image_scores[valid].argsort(descending=True, stable=True)][: options.candidates]
        boxes = _decode(image_deltas[best], anchors[best], UNIT_STD, height, width)
        visible = _visible(boxes)
        boxes, best = boxes[visible], best[visible]
        kept = nms(boxes, image_scores[best], options.proposal_iou)[: options.proposals]
        proposals.append(boxes[kept])
    return proposals


def vote(maps: DetectionMaps, proposals: list[Tensor], options: RegionOptions) -> RegionVotes:
    """Position-sensitive pooling of each region and the average of its bins. Differentiable by the maps.

    Args:
        maps: Of N images.
        proposals: For each image (P, 4): x1, y1, x2, y2 in pixels.
        options: See `RegionOptions`.

    Returns:
        The votes of all images' regions, one image after the other.
    """
    return RegionVotes(
        _pool(maps.class_maps, proposals, options).double().mean((2, 3)).to(maps.class_maps),
        _pool(maps.box_maps, proposals, options).double().mean((2, 3)).to(maps.box_maps),
    )


@torch.no_grad()
def detect(maps: DetectionMaps, height: int, width: int, options: RegionOptions) -> list[Objects]:
    """The objects on each image.

    Args:
        maps: Of N images.
        height: Of the images, pixels.
        width: Of the images, pixels.
        options: See `RegionOptions`.
    """
    proposals = propose(maps, height, width, options)
    votes = vote(maps, proposals, options)
    counts = [len(regions) for regions in proposals]
    found = []
    for regions, logits, deltas in zip(proposals, *(torch.split(v, counts) for v in votes), strict=True):
        boxes = _decode(deltas, regions, options.box_std, height, width)
        scores = logits.double().softmax(1).to(logits)
        visible = _visible(boxes)
        found.append(_suppress(boxes[visible], scores[visible], options))
    return found


def _decode(
    deltas: Tensor, references: Tensor, std: tuple[float, float, float, float], height: int, width: int
) -> Tensor:
    boxes = decode_boxes(deltas.double(), references.double(), std)
    clipped: Tensor = clip_boxes_to_image(boxes, (height, width))
    return clipped.to(deltas)


def _visible(boxes: Tensor) -> Tensor:
    """Which boxes cover something: not those outside the image, nor those that aren't numbers."""
    return (boxes[:, 2:] > boxes[:, :2]).all(1)


def _pool(maps: Tensor, proposals: list[Tensor], options: RegionOptions) -> Tensor:
    by_bin = torch.unflatten(maps, 1, (options.pooling**2, -1))
    by_value = by_bin.transpose(1, 2).flatten(1, 2)  # as torchvision wants it
    # torchvision clips regions to the last row and column less one, so these would never be pooled: hence one more
    padded = functional.pad(by_value, (0, 1, 0, 1))
    pooled: Tensor = ps_roi_pool(padded, proposals, options.pooling, 1 / options.stride)
    return pooled


def _suppress(boxes: Tensor, scores: Tensor, options: RegionOptions) -> Objects:
    """Suppression within each class, then the best of all classes; boxes (R, 4), scores (R, C+1)."""
    found = []
    for label in range(1, scores.shape[1]):
        certain = torch.nonzero(scores[:, label] >= options.threshold).squeeze(1)
        order = certain[scores[certain, label].argsort(descending=True, stable=True)]
        kept = order[nms(boxes[order], scores[order, label], options.iou)]
        found.append(Objects(boxes[kept], scores[kept, label], torch.full_like(kept, label)))
    merged = Objects(*(torch.cat(parts) for parts in zip(*found, strict=True)))
    best = merged.scores.argsort(descending=True, stable=True)[: options.limit]
    return Objects(*(part[best] for part in merged))
