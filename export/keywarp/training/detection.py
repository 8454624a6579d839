"""The losses that train R-FCN's proposals and its classification of regions, both computed from the head's maps.

They follow "Faster R-CNN" (Ren et al., 2015), section 3.1, and "R-FCN" (Dai et al., 2016), section 2.2, as the
published implementation of "Deep Feature Flow" combines them. All parts are trained at once, and the four losses have
equal weights.
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

BACKGROUND, FOREGROUND = 0, 1  # labels of anchors; the labels of regions are classes, of which 0 is the background
IGNORED = -1  # label of anchors and regions that don't contribute to the loss


@dataclass(frozen=True)
class DetectionLossOptions:
    """The choice of the anchors and regions that contribute to the loss, and its parameters.

    The defaults are those of the published implementation, except where a comment says otherwise.
    """

    anchor_foreground: float = 0.7  # lowest IoU of a foreground anchor; each object's best anchor is foreground, too
    anchor_background: float = 0.3  # an anchor whose IoU with every object is lower is background
    # Whether only anchors inside the image contribute to the loss. They do so in the published implementation, whose
    # images of 1000x600 contain 38 % of the default anchors. Images of 256x192 contain only 4 %, all of the smallest
    # scale, so most objects would have no anchor.
    anchors_inside: bool = False
    anchors: int = 256  # anchors drawn per image
    anchors_foreground: int = 128  # maximum number of foreground anchors among them; the others are background
    anchor_sigma: float = 3.0  # the smooth L1 loss is quadratic below 1 / sigma^2
    region_foreground: float = 0.5  # lowest IoU of a region that gets the object's class
    # Lowest IoU of a background region. Fast R-CNN uses 0.1 to find hard regions; online hard example mining needs no
    # such limit.
    region_background: float = 0.0
    regions: int = 128  # regions kept per image, those with the largest loss (online hard example mining)
    region_sigma: float = 1.0  # the smooth L1 loss is quadratic below 1 / sigma^2


class DetectionLosses(NamedTuple):
    """The four parts of the loss, each a scalar and a mean over the images."""

    objectness: Tensor  # cross-entropy of the drawn anchors
    anchors: Tensor  # smooth L1 of the foreground anchors' deltas, per drawn anchor
    classes: Tensor  # cross-entropy of the hardest regions
    boxes: Tensor  # smooth L1 of the foreground regions' deltas, per hardest region

    @property
    def total(self) -> Tensor:
        """The sum of all parts, which training minimises."""
        return self.objectness + self.anchors + self.classes + self.boxes


class BoxLabels(NamedTuple):
    """The targets of n anchors or regions."""

    labels: Tensor  # (n,), int64: IGNORED, 0 for the background, or the class
    matches: Tensor  # (n,), int64: index of the object with the largest overlap; 0 where there are no objects


def detection_loss(
    maps: DetectionMaps,
    truths: Sequence[Boxes],
    height: int,
    width: int,
    options: RegionOptions,
    generators: Sequence[torch.Generator],
    loss_options: DetectionLossOptions | None = None,
) -> Tensor:
    """Return the sum of the four losses. The arguments are those of `detection_losses`."""
    return detection_losses(maps, truths, height, width, options, generators, loss_options).total


def detection_losses(
    maps: DetectionMaps,
    truths: Sequence[Boxes],
    height: int,
    width: int,
    options: RegionOptions,
    generators: Sequence[torch.Generator],
    loss_options: DetectionLossOptions | None = None,
) -> DetectionLosses:
    """Compute the losses of N images, in float32 even if the maps have less precision.

    Each image's losses are divided by the number of its own anchors or regions. So the loss of a batch is the mean of
    the losses of its parts, in one process or in several.

    Args:
        maps: The head's maps of the N images.
        truths: The objects on each image. Objects without area are ignored.
        height: The images' height in pixels.
        width: The images' width in pixels.
        options: How regions are proposed and pooled, the same as in detection.
        generators: The random generator for each image's anchors. Each image has its own, so that its anchors don't
            depend on the rest of the batch.
        loss_options: The options of the loss, or None for the defaults.

    Raises:
        ValueError: If the maps and `truths` have different numbers of images, or the maps and `options` different
            numbers of anchors.
    """
    if len(truths) != len(maps.objectness):
        raise ValueError(f"there are maps of {len(maps.objectness)} images, but objects of {len(truths)}")
    loss_options = loss_options or DetectionLossOptions()
    device = maps.objectness.device
    with torch.autocast(device.type, enabled=False):
        maps = DetectionMaps(*(m.float() for m in maps))
        objects = [_objects(truth, device) for truth in truths]
        regions = propose(maps, height, width, options)
        return DetectionLosses(
            *_anchor_losses(maps, objects, height, width, options, loss_options, generators),
            *_region_losses(maps, objects, regions, options, loss_options),
        )


def label_anchors(
    anchors: Tensor, objects: Tensor, height: int, width: int, loss_options: DetectionLossOptions
) -> BoxLabels:
    """Label anchors as foreground, background or ignored (Faster R-CNN, section 3.1.2).

    Args:
        anchors: The anchors (n, 4) as x1, y1, x2, y2 in pixels.
        objects: The objects (m, 4) in the same form; m may be 0.
        height: The image's height in pixels.
        width: The image's width in pixels.
        loss_options: The thresholds.
    """
    iou = box_iou(objects, anchors)  # (m, n)
    outside = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
    if loss_options.anchors_inside:
        outside = (anchors[:, :2] < 0).any(1) | (anchors[:, 2:] > anchors.new_tensor((width, height))).any(1)
        iou[:, outside] = 0
    best, matches = _best(iou)
    is_best = ((iou == iou.amax(1, keepdim=True)) & (iou > 0)).any(0)  # all of several equally good anchors
    labels = torch.full_like(matches, IGNORED)
    labels[best < loss_options.anchor_background] = BACKGROUND
    labels[is_best | (best >= loss_options.anchor_foreground)] = FOREGROUND
    labels[outside] = IGNORED
    return BoxLabels(labels, matches)


def label_regions(regions: Tensor, objects: Tensor, classes: Tensor, loss_options: DetectionLossOptions) -> BoxLabels:
    """Label regions by class (Fast R-CNN, section 2.3).

    Args:
        regions: The regions (n, 4) as x1, y1, x2, y2 in pixels.
        objects: The objects (m, 4) in the same form; m may be 0.
        classes: The objects' classes (m,), int64.
        loss_options: The thresholds.
    """
    best, matches = _best(box_iou(objects, regions))
    labels = torch.full_like(matches, IGNORED)
    labels[best >= loss_options.region_background] = BACKGROUND
    foreground = best >= loss_options.region_foreground
    labels[foreground] = classes[matches[foreground]]
    return BoxLabels(labels, matches)


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
    loss_options: DetectionLossOptions,
    generators: Sequence[torch.Generator],
) -> tuple[Tensor, Tensor]:
    """Return the losses of the anchors' objectness and deltas."""
    rows, columns = maps.objectness.shape[-2:]
    base = base_anchors(options.anchor_base, options.anchor_ratios, options.anchor_scales).to(maps.objectness)
    anchors = grid_anchors(base, rows, columns, options.stride)
    logits = torch.unflatten(maps.objectness, 1, (2, -1)).permute(0, 3, 4, 2, 1).flatten(1, 3)  # (N, H W A, 2)
    deltas = maps.anchor_deltas.permute(0, 2, 3, 1).reshape(len(logits), -1, 4)  # (N, H W A, 4)
    losses = []
    for image_logits, image_deltas, (corners, _), generator in zip(logits, deltas, objects, generators, strict=True):
        labels, matches = label_anchors(anchors, corners, height, width, loss_options)
        foreground, background = _draw(labels, loss_options, generator)
        drawn = torch.cat((foreground, background))
        class_loss = functional.cross_entropy(image_logits[drawn], labels[drawn], reduction="sum")
        target = encode_boxes(corners[matches[foreground]], anchors[foreground])
        delta_loss = _smooth_l1(image_deltas[foreground], target, loss_options.anchor_sigma).sum()
        losses.append(torch.stack((class_loss, delta_loss)) / max(len(drawn), 1))
    objectness, anchor_deltas = torch.stack(losses).mean(0)
    return objectness, anchor_deltas


def _region_losses(
    maps: DetectionMaps,
    objects: Sequence[_Objects],
    proposals: Sequence[Tensor],
    options: RegionOptions,
    loss_options: DetectionLossOptions,
) -> tuple[Tensor, Tensor]:
    """Return the losses of the regions' classes and boxes."""
    # As in the published implementation, the objects themselves are added to the regions, so that the first steps can
    # already learn to classify.
    regions = [torch.cat((boxes, corners)) for boxes, (corners, _) in zip(proposals, objects, strict=True)]
    votes = vote(maps, regions, options)
    counts = [len(boxes) for boxes in regions]
    losses = []
    for boxes, (corners, classes), logits, deltas in zip(
        regions, objects, *(torch.split(v, counts) for v in votes), strict=True
    ):
        labels, matches = label_regions(boxes, corners, classes, loss_options)
        class_losses = functional.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED)
        foreground = torch.nonzero(labels > BACKGROUND).squeeze(1)
        target = encode_boxes(corners[matches[foreground]], boxes[foreground], options.box_std)
        box_losses = torch.zeros_like(class_losses)
        box_losses[foreground] = _smooth_l1(deltas[foreground], target, loss_options.region_sigma).sum(1)
        known = torch.nonzero(labels != IGNORED).squeeze(1)
        hardest = (
            (class_losses + box_losses).detach()[known].argsort(descending=True, stable=True)[: loss_options.regions]
        )
        kept = known[hardest]
        losses.append(torch.stack((class_losses[kept].sum(), box_losses[kept].sum())) / max(len(kept), 1))
    classes_loss, boxes_loss = torch.stack(losses).mean(0)
    return classes_loss, boxes_loss


def _best(iou: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest value of each column of `iou` (m, n) and its row, both (n,), or zeros if m is 0."""
    if len(iou) == 0:
        return iou.new_zeros(iou.shape[1]), torch.zeros(iou.shape[1], dtype=torch.int64, device=iou.device)
    best, matches = iou.max(dim=0)
    return best, matches


def _draw(labels: Tensor, loss_options: DetectionLossOptions, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw anchors, and return the indices of the foreground and the background ones."""
    order = torch.randperm(len(labels), generator=generator, device=generator.device).to(labels.device)
    shuffled = labels[order]
    foreground = order[shuffled == FOREGROUND][: loss_options.anchors_foreground]
    background = order[shuffled == BACKGROUND][: loss_options.anchors - len(foreground)]
    return foreground, background


def _smooth_l1(deltas: Tensor, target: Tensor, sigma: float) -> Tensor:
    """Return (sigma x)^2 / 2 below 1 / sigma^2 and |x| - 1 / (2 sigma^2) above, per element, as Faster R-CNN's code."""
    return functional.smooth_l1_loss(deltas, target, reduction="none", beta=1 / sigma**2)
