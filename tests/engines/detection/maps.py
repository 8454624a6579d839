"""Possible outputs of R-FCN heads, for the reference in torch and for the engine."""

from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from keywarp.engines.manifest import RegionDetection
from keywarp.networks.anchors import base_anchors, grid_anchors
from keywarp.networks.boxes import encode_boxes
from keywarp.networks.regions import RegionOptions
from keywarp.networks.rfcn import DetectionMaps, detection_outputs


def settings_of(options: RegionOptions) -> RegionDetection:
    return RegionDetection(**asdict(options))


def random_maps(options: RegionOptions, classes: int, height: int, width: int) -> DetectionMaps:
    """Make maps like those of an untrained network, but with a wider range of values."""
    rows, columns = -(-height // options.stride), -(-width // options.stride)
    anchors, bins = len(options.anchor_ratios) * len(options.anchor_scales), options.pooling**2
    return DetectionMaps(
        torch.randn(1, 2 * anchors, rows, columns),
        torch.randn(1, 4 * anchors, rows, columns) * 0.3,
        torch.randn(1, classes * bins, rows, columns) * 9,
        torch.randn(1, 4 * bins, rows, columns) * 3,
    )


def clustered_maps(options: RegionOptions, classes: int, height: int, width: int, objects: int = 8) -> DetectionMaps:
    """Make maps like those of a trained network: anchors near an object score high and lead to about the same box."""
    maps = random_maps(options, classes, height, width)
    rows, columns = maps.objectness.shape[-2:]
    base = base_anchors(options.anchor_base, options.anchor_ratios, options.anchor_scales)
    anchors = grid_anchors(base, rows, columns, options.stride)
    centres = torch.rand(objects, 2) * torch.tensor([width, height])
    sizes = (0.1 + 0.5 * torch.rand(objects, 2)) * torch.tensor([width, height])
    boxes = torch.cat((centres - sizes / 2, centres + sizes / 2), dim=1)
    overlap, nearest = box_iou(anchors, boxes).max(1)
    deltas = encode_boxes(boxes[nearest], anchors) + 0.1 * torch.randn(len(anchors), 4)
    odds = 10 * overlap - 5 + 0.5 * torch.randn(len(anchors))
    foreground = odds.view(1, rows, columns, len(base)).permute(0, 3, 1, 2)
    for n, box in enumerate((boxes / options.stride).clamp(min=0).int().tolist()):
        label = 1 + n % (classes - 1)
        maps.class_maps[0, label::classes, box[1] : box[3] + 1, box[0] : box[2] + 1] += 6
    return DetectionMaps(
        torch.cat((torch.zeros_like(foreground), foreground), dim=1),
        deltas.view(1, rows, columns, 4 * len(base)).permute(0, 3, 1, 2),
        maps.class_maps,
        maps.box_maps / 3,
    )


def outputs_of(maps: DetectionMaps) -> dict[str, NDArray[np.float32]]:
    """Return the maps in the form of a bundle's outputs."""
    return {name: values.contiguous().numpy() for name, values in detection_outputs(maps)._asdict().items()}
