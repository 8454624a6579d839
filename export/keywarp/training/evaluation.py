"""Accuracy as a stream sees it: by position in the key interval, beside per-frame evaluation and copied features."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from keywarp.datasets import IGNORE, LabelledClip
from keywarp.networks import DeepFeatureFlow
from keywarp.training.images import normalised
from keywarp.training.joint import enlarged


class Confusion:
    """Counts of pixels by true and predicted class."""

    def __init__(self, classes: int) -> None:
        self._counts = np.zeros((classes, classes), np.int64)

    def add(self, truth: npt.NDArray[np.uint8], predicted: npt.NDArray[np.uint8]) -> None:
        """Count one picture, but for its ignored pixels."""
        classes = len(self._counts)
        known = truth != IGNORE
        pairs = truth[known].astype(np.int64) * classes + predicted[known]
        self._counts += np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)

    def merge(self, other: "Confusion") -> None:
        """Count what another one counted."""
        self._counts += other._counts

    def iou(self) -> list[float | None]:
        """Intersection over union of each class; None for a class that is in neither truth nor prediction."""
        hits = np.diag(self._counts)
        union = self._counts.sum(0) + self._counts.sum(1) - hits
        return [float(h / u) if u else None for h, u in zip(hits, union, strict=True)]

    def mean_iou(self) -> float:
        """Mean over the classes that occur in the truth."""
        values = [v for v, n in zip(self.iou(), self._counts.sum(1), strict=True) if n and v is not None]
        return float(np.mean(values)) if values else float("nan")


@dataclass(frozen=True)
class Accuracy:
    """Mean IoU against a clip's labels."""

    per_frame: float  # interval 1: the feature network on every frame
    per_class: list[float | None]  # IoU, of interval 1
    propagated: float  # the key interval, all frames
    copied: float  # the same with the key frame's features unwarped
    by_age: list[float]  # propagated, by frames since the key frame
    copied_by_age: list[float]


def evaluate(
    network: DeepFeatureFlow[Tensor],
    source: LabelledClip,
    classes: int,
    interval: int,
    multiple: int,
    progress: Callable[[], None] = lambda: None,
) -> Accuracy:
    """Run a clip as streams do (Algorithm 1), in three ways at once.

    A new shot doesn't restart the interval: a camera's stream doesn't either, so what a cut costs is in the figures.

    Args:
        network: The networks.
        source: What they are measured on.
        classes: With the background.
        interval: Frames from one key frame to the next.
        multiple: Frame sides are rounded to this by resizing, as in the bundle.
        progress: Called once a frame.
    """
    single = Confusion(classes)
    warped = [Confusion(classes) for _ in range(interval)]
    copied = [Confusion(classes) for _ in range(interval)]
    network.eval()
    key_image = torch.empty(0)
    key_features: tuple[Tensor, ...] = ()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for index, (frame, truth) in enumerate(zip(source.clip.frames, source.labels, strict=True)):
            image = _rounded(normalised(frame[None]), multiple)
            features = network.features(image)
            age = index % interval
            if age == 0:
                key_image, key_features = image, features
            single.add(truth, predict(network, features, truth.shape))
            copied[age].add(truth, predict(network, key_features, truth.shape))
            if age:
                features = network.propagate(key_features, image, key_image)
            warped[age].add(truth, predict(network, features, truth.shape))
            progress()
    return Accuracy(
        single.mean_iou(),
        single.iou(),
        _sum(warped).mean_iou(),
        _sum(copied).mean_iou(),
        [c.mean_iou() for c in warped],
        [c.mean_iou() for c in copied],
    )


def predict(
    network: DeepFeatureFlow[Tensor], features: tuple[Tensor, ...], shape: tuple[int, ...]
) -> npt.NDArray[np.uint8]:
    """Features -> class ids (H, W) of the labels' shape."""
    [probabilities] = network.recognition.predict(network.recognition.head(*features))
    scores = enlarged(probabilities.float())
    ids = scores.argmax(dim=1, keepdim=True).to(torch.uint8)
    if ids.shape[-2:] != shape:
        ids = functional.interpolate(ids, size=shape, mode="nearest")
    return np.asarray(ids[0, 0].numpy())


def _rounded(image: Tensor, multiple: int) -> Tensor:
    size = [max(multiple, round(side / multiple) * multiple) for side in image.shape[-2:]]
    if size == list(image.shape[-2:]):
        return image
    return functional.interpolate(image, size=size, mode="bilinear", align_corners=False)


def _sum(parts: list[Confusion]) -> Confusion:
    total = Confusion(len(parts[0].iou()))
    for part in parts:
        total.merge(part)
    return total
