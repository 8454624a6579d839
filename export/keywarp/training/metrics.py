"""How right results are: mean IoU of segmentation, mAP of detection.

Both are of a whole data set: what is added is collected, and the figure is computed once, from all of it.
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
    """A figure between 0 and 1, the higher the better."""

    name: str  # for people

    def value(self) -> float:
        """The mean over the classes that occur in the truth; NaN where none does."""
        ...

    def per_class(self) -> list[float | None]:
        """Of each class, the background first; None for a class that it isn't defined for."""
        ...

    def merge(self, other: Self) -> None:
        """Take in what was added to another one."""
        ...


class SegmentationMetric:
    """Intersection over union, of the pixels of all images together (Cityscapes' protocol)."""

    name = "mIoU"

    def __init__(self, classes: int, ignore: int = IGNORE) -> None:
        """Start with no pixels.

        Args:
            classes: With the background.
            ignore: The label of pixels that don't count, whatever is predicted there.
        """
        self._classes = classes
        self._ignore = ignore
        self._pixels = torch.zeros(classes, classes, dtype=torch.int64)  # by true and predicted class

    def add(self, truth: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer]) -> None:
        """Count one image.

        Args:
            truth: (H, W), class ids.
            predicted: (H, W), likewise.
        """
        self._pixels += multiclass_confusion_matrix(
            torch.from_numpy(predicted.astype(np.int64)),
            torch.from_numpy(truth.astype(np.int64)),
            num_classes=self._classes,
            ignore_index=self._ignore,
            validate_args=False,
        )

    def merge(self, other: "SegmentationMetric") -> None:
        """Count what another one counted."""
        self._pixels += other._pixels

    def iou(self) -> list[float | None]:
        """Of each class; None for one that is in neither truth nor prediction."""
        hits = self._pixels.diagonal()
        union = self._pixels.sum(0) + self._pixels.sum(1) - hits
        return [h / u if u else None for h, u in zip(hits.tolist(), union.tolist(), strict=True)]

    def mean_iou(self) -> float:
        """Over the classes that occur in the truth; NaN where none does."""
        occurs = self._pixels.sum(1).tolist()
        return _mean([iou if n else None for iou, n in zip(self.iou(), occurs, strict=True)])

    value = mean_iou
    per_class = iou


class DetectionMetric:
    """Mean average precision at an IoU of 0.5, by COCO's rules.

    ImageNet VID's official figure, which the paper gives, differs in details:

    - The area under the precision-recall curve is the mean at 101 recalls here, and exact there.
    - The 100 most certain objects of each class and image count here, all of them there.
    - A detection whose best object is already found may still match another one here; there it is wrong.
    - Small objects need an IoU of 0.5 too here; there it is w h / ((w + 10) (h + 10)) where that is less.
    """

    name = "mAP@0.5"

    def __init__(self, classes: int) -> None:
        """Start with no images.

        Args:
            classes: With the background.
        """
        self._classes = classes
        self._truths: list[dict[str, Tensor]] = []
        self._found: list[dict[str, Tensor]] = []
        self._computed: list[float | None] | None = None  # seconds of work, kept until more is added

    def add(self, truth: Boxes, objects: Objects) -> None:
        """Keep one image's objects: those that there are and those that were found."""
        self._computed = None
        self._truths.append({"boxes": torch.tensor(truth.corners), "labels": torch.tensor(truth.classes)})
        boxes, scores, labels = (part.detach().cpu() for part in objects)
        self._found.append({"boxes": boxes.float(), "scores": scores.float(), "labels": labels})

    def merge(self, other: "DetectionMetric") -> None:
        """Keep another one's images, too."""
        self._computed = None
        self._truths += other._truths
        self._found += other._found

    def per_class(self) -> list[float | None]:
        """Average precision of each class; None for one that no image has."""
        if self._computed is None:
            self._computed = self._compute()
        return list(self._computed)

    def mean_ap(self) -> float:
        """Over the classes that occur in the truth; NaN where none does."""
        return _mean(self.per_class())

    value = mean_ap

    def _compute(self) -> list[float | None]:
        figures: list[float | None] = [None] * self._classes
        if not any(len(truth["labels"]) for truth in self._truths):
            return figures  # torchmetrics would warn of images without labels, or of none at all
        metric = MeanAveragePrecision(iou_thresholds=[0.5], extended_summary=True)
        metric.update(self._found, self._truths)
        result = metric.compute()
        # (IoU thresholds, recalls, classes, sizes of objects, limits of detections); -1: no image has the class
        precision = result["precision"][0, :, :, 0, -1].double().mean(0)
        for label, value in zip(result["classes"].view(-1).tolist(), precision.tolist(), strict=True):
            figures[label] = value if value >= 0 else None
        return figures


def _mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return fmean(known) if known else float("nan")
