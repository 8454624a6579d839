"""The losses that train R-FCN: of its proposals and of the regions that it classifies, both from the head's maps.

"Faster R-CNN" (Ren et al., 2015), section 3.1, and "R-FCN" (Dai et al., 2016), section 2.2, as the published
implementation of "Deep Feature Flow" combines them: everything is trained at once, and all four losses weigh the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou

from keywarp.datasets.samples import Boxes
from keywarp.networks.anchors import base_anchors, grid_anchors
from keywarp.networks.boxes import encode_boxes
from keywarp.networks.regions import RegionOptions, propose, vote
from keywarp.networks.rfcn import DetectionMaps

BACKGROUND, FOREGROUND = 0, 1  # of anchors; regions have classes, of which the background is 0 as well
IGNORED = -1  # an anchor or region that nothing is learnt from


@dataclass(frozen=True)
class DetectionTraining:
    """What is learnt from. The defaults are the original's, but for the two that say so."""

    anchor_foreground: float = 0.7  # IoU with an object from which an anchor is foreground; so is an object's best
    anchor_background: float = 0.3  # IoU with all objects below which an anchor is background
    # Only anchors inside the image are learnt from. The original does so, on images of 1000x600, where 38 % of the
    # default ones are inside. On 256x192 it is 4 %, all of them of the smallest scale: most objects would have none.
    anchors_inside: bool = False
    anchors: int = 256  # drawn per image
    anchors_foreground: int = 128  # of these at most; background fills up
    anchor_sigma: float = 3.0  # of the smooth L1 loss: quadratic below 1 / sigma^2
    region_foreground: float = 0.5  # IoU from which a region is of the object's class
    region_background: float = 0.0  # IoU from which it else is background; Fast R-CNN mines from 0.1, OHEM needn't
    regions: int = 128  # per image, those with the largest loss (online hard example mining)
    region_sigma: float = 1.0  # of the smooth L1 loss


class DetectionLosses(NamedTuple):
    """The parts of the loss: scalars, each a mean over the images."""

    objectness: Tensor  # cross-entropy of the anchors drawn
    anchors: Tensor  # smooth L1 of the foreground's deltas, per anchor drawn
    classes: Tensor  # cross-entropy of the hardest regions
    boxes: Tensor  # smooth L1 of the foreground's deltas, per hardest region

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return self.objectness + self.anchors + self.classes + self.boxes


class Labels(NamedTuple):
    """What boxes are to be recognised as."""

    labels: Tensor  # (n,), int64: IGNORED, 0 for the background, or more
    matches: Tensor  # (n,), int64: the index of the object that each overlaps most; 0 where there is none


def detection_loss(
    maps: DetectionMaps,
    truths: Sequence[Boxes],
    height: int,
    width: int,
    options: RegionOptions,
    generators: Sequence[torch.Generator],
    training: DetectionTraining | None = None,
) -> Tensor:
    """The sum of `detection_losses`, which see."""
    return detection_losses(maps, truths, height, width, options, generators, training).total


def detection_losses(
    maps: DetectionMaps,
    truths: Sequence[Boxes],
    height: int,
    width: int,
    options: RegionOptions,
    generators: Sequence[torch.Generator],
    training: DetectionTraining | None = None,
) -> DetectionLosses:
    """What the maps get wrong, in float32 whatever they are computed in.

    Each image's losses are divided by what was drawn from that image. So the mean over the parts of a batch, as of
    processes that share it, is the batch's.

    Args:
        maps: Of N images.
        truths: The objects on each of them. What has no area is passed over.
        height: Of the images, pixels.
        width: Of the images, pixels.
        options: How regions are proposed and pooled; as when objects are detected later.
        generators: Draw the anchors, one for each image: what is drawn doesn't depend on the batch.
        training: None: as in the original.

    Raises:
        ValueError: There are more or fewer images than truths, or the maps are of another number of anchors than the
            options.
    """
    if len(truths) != len(maps.objectness):
        raise ValueError(f"the maps are of {len(maps.objectness)} images, the truths of {len(truths)}")
    training = training or DetectionTraining()
    device = maps.objectness.device
    with torch.autocast(device.type, enabled=False):
        maps = DetectionMaps(*(m.float() for m in maps))
        objects = [_objects(truth, device) for truth in truths]
        regions = propose(maps, height, width, options)
        return DetectionLosses(
            *_anchor_losses(maps, objects, height, width, options, training, generators),
            *_region_losses(maps, objects, regions, options, training),
        )


def label_anchors(anchors: Tensor, objects: Tensor, height: int, width: int, training: DetectionTraining) -> Labels:
    """Which anchors are foreground, which background, and which are neither (Faster R-CNN, section 3.1.2).

    Args:
        anchors: (n, 4): x1, y1, x2, y2 in pixels.
        objects: (m, 4), likewise; m may be 0.
        height: Of the image, pixels.
        width: Of the image, pixels.
        training: The thresholds.
    """
    iou = box_iou(objects, anchors)  # (m, n)
    outside = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
    if training.anchors_inside:
        outside = (anchors[:, :2] < 0).any(1) | (anchors[:, 2:] > anchors.new_tensor((width, height))).any(1)
        iou[:, outside] = 0
    best, matches = _best(iou)
    is_best = ((iou == iou.amax(1, keepdim=True)) & (iou > 0)).any(0)  # ties are foreground, too
    labels = torch.full_like(matches, IGNORED)
    labels[best < training.anchor_background] = BACKGROUND
    labels[is_best | (best >= training.anchor_foreground)] = FOREGROUND
    labels[outside] = IGNORED
    return Labels(labels, matches)


def label_regions(regions: Tensor, objects: Tensor, classes: Tensor, training: DetectionTraining) -> Labels:
    """Which regions are of which class (Fast R-CNN, section 2.3).

    Args:
        regions: (n, 4): x1, y1, x2, y2 in pixels.
        objects: (m, 4), likewise; m may be 0.
        classes: (m,), int64, of the objects.
        training: The thresholds.
    """
    best, matches = _best(box_iou(objects, regions))
    labels = torch.full_like(matches, IGNORED)
    labels[best >= training.region_background] = BACKGROUND
    foreground = best >= training.region_foreground
    labels[foreground] = classes[matches[foreground]]
    return Labels(labels, matches)


class _Objects(NamedTuple):
    corners: Tensor  # (m, 4), float32
    classes: Tensor  # (m,), int64


def _objects(truth: Boxes, device: torch.device) -> _Objects:
    corners = torch.tensor(truth.corners, dtype=torch.float32, device=device).view(-1, 4)
    classes = torch.tensor(truth.classes, dtype=torch.int64, device=device)
    visible = (corners[:, 2:] > corners[:, :2]).all(1)
    return _Objects(corners[visible], classes[visible])


def _anchor_losses(
    maps: DetectionMaps,
    objects: Sequence[_Objects],
    height: int,
    width: int,
    options: RegionOptions,
    training: DetectionTraining,
    generators: Sequence[torch.Generator],
) -> tuple[Tensor, Tensor]:
    """Objectness and deltas."""
    rows, columns = maps.objectness.shape[-2:]
    base = base_anchors(options.anchor_base, options.anchor_ratios, options.anchor_scales).to(maps.objectness)
    anchors = grid_anchors(base, rows, columns, options.stride)
    logits = torch.unflatten(maps.objectness, 1, (2, -1)).permute(0, 3, 4, 2, 1).flatten(1, 3)  # (N, H W A, 2)
    deltas = maps.anchor_deltas.permute(0, 2, 3, 1).reshape(len(logits), -1, 4)  # (N, H W A, 4)
    losses = []
    for image_logits, image_deltas, (corners, _), generator in zip(logits, deltas, objects, generators, strict=True):
        labels, matches = label_anchors(anchors, corners, height, width, training)
        foreground, background = _draw(labels, training, generator)
        drawn = torch.cat((foreground, background))
        wrong = functional.cross_entropy(image_logits[drawn], labels[drawn], reduction="sum")
        target = encode_boxes(corners[matches[foreground]], anchors[foreground])
        off = _smooth_l1(image_deltas[foreground], target, training.anchor_sigma).sum()
        losses.append(torch.stack((wrong, off)) / max(len(drawn), 1))
    objectness, offsets = torch.stack(losses).mean(0)
    return objectness, offsets


def _region_losses(
    maps: DetectionMaps,
    objects: Sequence[_Objects],
    proposals: Sequence[Tensor],
    options: RegionOptions,
    training: DetectionTraining,
) -> tuple[Tensor, Tensor]:
    """Classes and boxes."""
    # As in the original, the objects are among the regions: there is something to classify from the first step on.
    regions = [torch.cat((boxes, corners)) for boxes, (corners, _) in zip(proposals, objects, strict=True)]
    votes = vote(maps, regions, options)
    counts = [len(boxes) for boxes in regions]
    losses = []
    for boxes, (corners, classes), logits, deltas in zip(
        regions, objects, *(torch.split(v, counts) for v in votes), strict=True
    ):
        labels, matches = label_regions(boxes, corners, classes, training)
        wrong = functional.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED)
        foreground = torch.nonzero(labels > BACKGROUND).squeeze(1)
        target = encode_boxes(corners[matches[foreground]], boxes[foreground], options.box_std)
        off = torch.zeros_like(wrong)
        off[foreground] = _smooth_l1(deltas[foreground], target, training.region_sigma).sum(1)
        known = torch.nonzero(labels != IGNORED).squeeze(1)
        hardest = (wrong + off).detach()[known].argsort(descending=True, stable=True)[: training.regions]
        kept = known[hardest]
        losses.append(torch.stack((wrong[kept].sum(), off[kept].sum())) / max(len(kept), 1))
    wrongs, offsets = torch.stack(losses).mean(0)
    return wrongs, offsets


def _best(iou: Tensor) -> tuple[Tensor, Tensor]:
    """(m, n) -> the largest of each column and its row, both (n,); zeros where m is 0."""
    if len(iou) == 0:
        return iou.new_zeros(iou.shape[1]), torch.zeros(iou.shape[1], dtype=torch.int64, device=iou.device)
    best, matches = iou.max(dim=0)
    return best, matches


def _draw(labels: Tensor, training: DetectionTraining, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Foreground and background anchors at random: their indices."""
    order = torch.randperm(len(labels), generator=generator, device=generator.device).to(labels.device)
    shuffled = labels[order]
    foreground = order[shuffled == FOREGROUND][: training.anchors_foreground]
    background = order[shuffled == BACKGROUND][: training.anchors - len(foreground)]
    return foreground, background


def _smooth_l1(deltas: Tensor, target: Tensor, sigma: float) -> Tensor:
    """Element-wise: (sigma x)^2 / 2 below 1 / sigma^2, and |x| - 1 / (2 sigma^2) above (Faster R-CNN's code)."""
    return functional.smooth_l1_loss(deltas, target, reduction="none", beta=1 / sigma**2)
