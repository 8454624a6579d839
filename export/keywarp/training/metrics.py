"""Accuracy metrics: mean IoU for segmentation, mAP for detection.

Both describe a whole data set. Images are added one by one, and the value is computed from all of them together.
"""

from statistics import fmean
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision
from torchmetrics.functional.classification import multiclass_confusion_matrix

from keywarp.datasets.samples import Boxes
from keywarp.datasets.types import IGNORE
from keywarp.networks.regions import Objects


class Metric(Protocol):
    """A metric of accuracy, with values from 0 to 1. Higher is better."""

    name: str  # the metric's name in tables

    def value(self) -> float:
        """Return the mean over the classes in the ground truth, or NaN if there are none."""
        ...

    def per_class(self) -> list[float | None]:
        """Return the value of each class, the background first, or None where it isn't defined."""
        ...

    def merge(self, other: Self) -> None:
        """Add all images that were added to another metric."""
        ...


class SegmentationMetric:
    """Intersection over union, counted over the pixels of all images together (Cityscapes' protocol)."""

    name = "mIoU"

    def __init__(self, classes: int, ignore: int = IGNORE) -> None:
        """Start without images.

        Args:
            classes: The number of classes, with the background.
            ignore: The label of pixels that don't count, whatever is predicted there.
        """
        self._classes = classes
        self._ignore = ignore
        self._pixels = torch.zeros(classes, classes, dtype=torch.int64)  # pixel counts by true and predicted class

    def add(self, truth: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer]) -> None:
        """Add one image.

        Args:
            truth: The true class ids (H, W).
            predicted: The predicted class ids (H, W).
        """
        self._pixels += multiclass_confusion_matrix(
            torch.from_numpy(predicted.astype(np.int64)),
            torch.from_numpy(truth.astype(np.int64)),
            num_classes=self._classes,
            ignore_index=self._ignore,
            validate_args=False,
        )

    def merge(self, other: "SegmentationMetric") -> None:
        """Add the images of another metric."""
        self._pixels += other._pixels

    def iou(self) -> list[float | None]:
        """Return the IoU of each class, or None for a class that is in neither ground truth nor prediction."""
        hits = self._pixels.diagonal()
        union = self._pixels.sum(0) + self._pixels.sum(1) - hits
        return [h / u if u else None for h, u in zip(hits.tolist(), union.tolist(), strict=True)]

    def mean_iou(self) -> float:
        """Return the mean over the classes in the ground truth, or NaN if there are none."""
        true_pixels = self._pixels.sum(1).tolist()
        return _mean([iou if n else None for iou, n in zip(self.iou(), true_pixels, strict=True)])

    value = mean_iou
    per_class = iou


class DetectionMetric:
    """Mean average precision at an IoU of 0.5, by COCO's rules.

    ImageNet VID's official metric, which the paper reports, differs in details:

    - It computes the exact area under the precision-recall curve; COCO takes the mean precision at 101 recalls.
    - It counts all objects of a class in an image; COCO counts the 100 with the highest scores.
    - It counts a detection as wrong if the object that it overlaps most is already matched; COCO may match another.
    - For small objects it requires an IoU of w h / ((w + 10) (h + 10)) if that is below 0.5; COCO requires 0.5.
    """

    name = "mAP@0.5"

    def __init__(self, classes: int) -> None:
        """Start without images.

        Args:
            classes: The number of classes, with the background.
        """
        self._classes = classes
        self._truths: list[dict[str, Tensor]] = []
        self._found: list[dict[str, Tensor]] = []
        # Computing the values takes seconds, so they are kept until more images are added.
        self._computed: list[float | None] | None = None

    def add(self, truth: Boxes, objects: Objects) -> None:
        """Add one image.

        Args:
            truth: The true objects.
            objects: The detected objects.
        """
        self._computed = None
        self._truths.append({"boxes": torch.tensor(truth.corners), "labels": torch.tensor(truth.classes)})
        boxes, scores, labels = (part.detach().cpu() for part in objects)
        self._found.append({"boxes": boxes.float(), "scores": scores.float(), "labels": labels})

    def merge(self, other: "DetectionMetric") -> None:
        """Add the images of another metric."""
        self._computed = None
        self._truths += other._truths
        self._found += other._found

    def per_class(self) -> list[float | None]:
        """Return the average precision of each class, or None for a class that no image has."""
        if self._computed is None:
            self._computed = self._compute()
        return list(self._computed)

    def mean_ap(self) -> float:
        """Return the mean over the classes in the ground truth, or NaN if there are none."""
        return _mean(self.per_class())

    value = mean_ap

    def _compute(self) -> list[float | None]:
        figures: list[float | None] = [None] * self._classes
        if not any(len(truth["labels"]) for truth in self._truths):
            return figures  # torchmetrics would warn that there are no labels
        metric = MeanAveragePrecision(iou_thresholds=[0.5], extended_summary=True)
        metric.update(self._found, self._truths)
        result = metric.compute()
        # (IoU thresholds, recalls, classes, object sizes, limits of detections); -1 for a class that no image has
        precision = result["precision"][0, :, :, 0, -1].double().mean(0)
        for label, value in zip(result["classes"].view(-1).tolist(), precision.tolist(), strict=True):
            figures[label] = value if value >= 0 else None
        return figures


def _mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return fmean(known) if known else float("nan")
