"""R-FCN's second stage: from the head's maps to objects, by proposals, pooling, voting and suppression (section 4).

Nothing here has parameters. Sums and exponentials that decide which box is kept are computed in double precision and
then rounded to single precision. The results then depend neither on the order of summation nor on the library, so that
this implementation and the engine's make the same decisions.
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
    """How regions are proposed, pooled and reported. The defaults are the paper's where it gives a value."""

    stride: int = 16  # image pixels per cell of the maps
    anchor_base: int = 16  # side of the unscaled anchor, pixels
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width
    anchor_scales: tuple[float, ...] = (8.0, 16.0, 32.0)
    candidates: int = 6000  # highest-scoring anchors kept before suppression
    proposals: int = 300  # proposals kept after suppression
    proposal_iou: float = 0.7  # overlap above which the lower-scoring proposal is removed
    pooling: int = 7  # k: bins along each side of a region
    box_std: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)  # unit of dx, dy, dw, dh in the box maps
    threshold: float = 0.05  # lowest score of a reported object
    iou: float = 0.3  # overlap above which the lower-scoring object of a class is removed
    limit: int = 100  # maximum number of reported objects


class RegionVotes(NamedTuple):
    """The averages over the bins of R regions."""

    class_logits: Tensor  # (R, C+1), before the softmax
    box_deltas: Tensor  # (R, 4): dx, dy, dw, dh in units of `box_std`


class Objects(NamedTuple):
    """The objects found on one image, in decreasing order of score."""

    boxes: Tensor  # (n, 4): x1, y1, x2, y2 in pixels
    scores: Tensor  # (n,), 0..1
    labels: Tensor  # (n,) int64, class ids from 1; 0 is the background


@torch.no_grad()
def propose(maps: DetectionMaps, height: int, width: int, options: RegionOptions) -> list[Tensor]:
    """Propose regions, in decreasing order of score.

    Anchors of equal score keep their order. Anchors whose score or deltas are NaN are left out.

    Args:
        maps: The head's maps of N images.
        height: The images' height in pixels.
        width: The images' width in pixels.
        options: How regions are proposed.

    Returns:
        For each image, boxes (P, 4) as x1, y1, x2, y2 in pixels, with P <= options.proposals. They lie inside the image
        and aren't empty.

    Raises:
        ValueError: If the maps and the options differ in the number of anchors.
    """
    rows, columns = maps.objectness.shape[-2:]
    base = base_anchors(options.anchor_base, options.anchor_ratios, options.anchor_scales).to(maps.anchor_deltas)
    anchors = grid_anchors(base, rows, columns, options.stride)
    scores = log_odds(maps.objectness).permute(0, 2, 3, 1).flatten(1)  # (N, H W A)
    if scores.shape[1] != len(anchors):
        raise ValueError(
            f"the options describe {len(base)} anchors per cell, but the maps have {maps.objectness.shape[1] // 2}; "
            "use the options that the head was built with"
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
    """Pool each region position-sensitively and average its bins. This is differentiable with respect to the maps.

    Args:
        maps: The head's maps of N images.
        proposals: For each image, boxes (P, 4) as x1, y1, x2, y2 in pixels.
        options: How regions are pooled.

    Returns:
        The averages for the regions of all images, concatenated in order.
    """
    return RegionVotes(
        _pool(maps.class_maps, proposals, options).double().mean((2, 3)).to(maps.class_maps),
        _pool(maps.box_maps, proposals, options).double().mean((2, 3)).to(maps.box_maps),
    )


@torch.no_grad()
def detect(maps: DetectionMaps, height: int, width: int, options: RegionOptions) -> list[Objects]:
    """Find the objects on each image.

    Args:
        maps: The head's maps of N images.
        height: The images' height in pixels.
        width: The images' width in pixels.
        options: How regions are proposed, pooled and reported.
    """
    proposals = propose(maps, height, width, options)
    votes = vote(maps, proposals, options)
    counts = [len(regions) for regions in proposals]
    objects = []
    for regions, logits, deltas in zip(proposals, *(torch.split(v, counts) for v in votes), strict=True):
        boxes = _decode(deltas, regions, options.box_std, height, width)
        scores = logits.double().softmax(1).to(logits)
        visible = _visible(boxes)
        objects.append(_suppress(boxes[visible], scores[visible], options))
    return objects


def _decode(
    deltas: Tensor, references: Tensor, std: tuple[float, float, float, float], height: int, width: int
) -> Tensor:
    boxes = decode_boxes(deltas.double(), references.double(), std)
    clipped: Tensor = clip_boxes_to_image(boxes, (height, width))
    return clipped.to(deltas)


def _visible(boxes: Tensor) -> Tensor:
    """Return a mask of the boxes that have an area. Boxes outside the image and boxes with a NaN have none."""
    return (boxes[:, 2:] > boxes[:, :2]).all(1)


def _pool(maps: Tensor, proposals: list[Tensor], options: RegionOptions) -> Tensor:
    by_bin = torch.unflatten(maps, 1, (options.pooling**2, -1))
    by_value = by_bin.transpose(1, 2).flatten(1, 2)  # torchvision's channel order
    # torchvision never pools the last row and column, so the map is padded by one of each
    padded = functional.pad(by_value, (0, 1, 0, 1))
    pooled: Tensor = ps_roi_pool(padded, proposals, options.pooling, 1 / options.stride)
    return pooled


def _suppress(boxes: Tensor, scores: Tensor, options: RegionOptions) -> Objects:
    """Suppress overlaps within each class, then keep the best of all classes; boxes are (R, 4), scores (R, C + 1)."""
    by_class = []
    for label in range(1, scores.shape[1]):
        candidates = torch.nonzero(scores[:, label] >= options.threshold).squeeze(1)
        order = candidates[scores[candidates, label].argsort(descending=True, stable=True)]
        kept = order[nms(boxes[order], scores[order, label], options.iou)]
        by_class.append(Objects(boxes[kept], scores[kept, label], torch.full_like(kept, label)))
    merged = Objects(*(torch.cat(parts) for parts in zip(*by_class, strict=True)))
    best = merged.scores.argsort(descending=True, stable=True)[: options.limit]
    return Objects(*(part[best] for part in merged))
