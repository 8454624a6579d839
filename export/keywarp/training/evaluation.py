"""Accuracy by the paper's protocol and in a stream, both by key age.

The paper evaluates l pairs (k, i), k = i - l + 1, ..., i, for each frame i with ground truth, and averages over them
(section 5.2). Here each key age i - k is measured separately, over all labelled frames. The mean over the ages is the
paper's figure; the worst age shows what a user sees just before the next key frame.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from keywarp.choices import ServedTask
from keywarp.datasets import DataError, Image, Labels
from keywarp.datasets.samples import Snippet, SnippetSource, Truth
from keywarp.networks import DeepFeatureFlow, DetectionNetwork
from keywarp.networks.regions import Objects, detect
from keywarp.training.images import normalised
from keywarp.training.joint import upsample
from keywarp.training.metrics import DetectionMetric, Metric, SegmentationMetric

MAX_PIXELS = 1 << 20  # maximum number of pixels, over all images, in one pass through a network
Features = tuple[Tensor, ...]


@dataclass(frozen=True)
class Accuracy:
    """The values of a metric, from 0 to 1."""

    metric: str
    mean: float  # mean over the key ages
    worst: float  # value at the worst key age
    by_age: tuple[float, ...]  # values at the key ages 0, 1, ..., l - 1
    per_class: tuple[float | None, ...]  # means over the key ages; None for a class that isn't in the ground truth

    def until(self, interval: int) -> "Accuracy":
        """Return the accuracy at a shorter key interval. `per_class` stays as it is."""
        ages = tuple(self.by_age[:interval])
        return replace(self, mean=float(np.mean(ages)), worst=min(ages), by_age=ages)


@dataclass(frozen=True)
class Pairs:
    """A labelled frame, and the key frames that its features are propagated from."""

    name: str  # the snippet's name, or the frame's number in a stream
    current: Image
    keys: Sequence[Image]  # by increasing age; the first is the current frame itself
    ages: Sequence[int]  # the key frames' ages in frames


class Propagation(Protocol):
    """A function that derives the current frame's features from key features."""

    def __call__(self, network: DeepFeatureFlow[Any], features: Features, pairs: Pairs) -> Features:
        """Return the current frame's features as derived from each key frame.

        Args:
            network: The networks.
            features: The features of the l key frames, (l, C, H, W) for each map.
            pairs: The current frame and the key frames.
        """
        ...


def warp_features(network: DeepFeatureFlow[Any], features: Features, pairs: Pairs) -> Features:
    """Warp key features along the flow network's flow (deep feature flow). Those of the first key frame are kept."""
    keys = to_tensor(pairs.keys[1:], features[0].device)
    if not len(keys):
        return features
    current = to_tensor([pairs.current], keys.device).expand_as(keys)
    warped = network.propagate(tuple(x[1:] for x in features), current, keys)
    return tuple(torch.cat((x[:1], w.to(x))) for x, w in zip(features, warped, strict=True))


def copy_features(network: DeepFeatureFlow[Any], features: Features, pairs: Pairs) -> Features:  # noqa: ARG001
    """Use the key features as they are, as if nothing had moved."""
    return features


def recompute_features(network: DeepFeatureFlow[Any], features: Features, pairs: Pairs) -> Features:  # noqa: ARG001
    """Use the current frame's own features at all ages, as if every frame were a key frame (the paper's Frame)."""
    return tuple(x[:1].expand_as(x) for x in features)


PROPAGATIONS: dict[str, Propagation] = {
    "per frame": recompute_features,
    "propagated": warp_features,
    "copied": copy_features,
}


def evaluate(
    network: DeepFeatureFlow[Any],
    source: SnippetSource,
    classes: int,
    interval: int,
    propagations: Mapping[str, Propagation] = PROPAGATIONS,
    device: torch.device | None = None,
    progress: Callable[[], None] = lambda: None,
    max_pixels: int = MAX_PIXELS,
) -> dict[str, Accuracy]:
    """Measure the accuracy by the paper's protocol, for several propagations at once.

    Args:
        network: The networks, which are set to evaluation mode.
        source: Labelled frames, with the frames before them.
        classes: The number of classes, with the background.
        interval: The key interval l in frames.
        propagations: The propagations by name.
        device: The network's device, or None for the CPU.
        progress: A function that is called after every labelled frame.
        max_pixels: The maximum number of pixels, over all images, in one pass through a network.

    Returns:
        The accuracy by propagation.

    Raises:
        DataError: If a frame isn't labelled for the network's task.
    """
    network.eval()
    metrics = {name: MetricsByAge(network.recognition.task, classes) for name in propagations}
    with torch.inference_mode():
        for snippet in source.snippets(interval):
            for number, pairs in enumerate(_split_into_chunks(snippet, max_pixels)):
                features = network.features(to_tensor(pairs.keys, device))
                for name, propagate in propagations.items():
                    propagated = propagate(network, features, pairs)
                    results = recognise(network, propagated, pairs.current.shape)
                    for age, result in zip(pairs.ages, results, strict=True):
                        if age or not number:  # the current frame is in every chunk, but is counted once
                            add_frame(metrics[name].at(age), snippet.truth, result)
            progress()
    return {name: by_age.accuracy() for name, by_age in metrics.items()}


def evaluate_stream(
    network: DeepFeatureFlow[Any],
    frames: Iterable[tuple[Image, Truth]],
    classes: int,
    interval: int,
    propagations: Mapping[str, Propagation] = PROPAGATIONS,
    device: torch.device | None = None,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Accuracy]:
    """Measure the accuracy on a labelled video that runs as a stream (Algorithm 1), for several propagations at once.

    A cut doesn't start a new key interval, just as in a camera's stream, so the results include the cost of cuts.

    Args:
        network: The networks, which are set to evaluation mode.
        frames: The video's frames in order, all labelled.
        classes: The number of classes, with the background.
        interval: The key interval l in frames.
        propagations: The propagations by name.
        device: The network's device, or None for the CPU.
        progress: A function that is called after every frame.

    Returns:
        The accuracy by propagation.

    Raises:
        DataError: If a frame isn't labelled for the network's task.
    """
    network.eval()
    metrics = {name: MetricsByAge(network.recognition.task, classes) for name in propagations}
    key: Image = np.empty(0, np.uint8)
    key_features: Features = ()
    with torch.inference_mode():
        for index, (frame, truth) in enumerate(frames):
            features, age = network.features(to_tensor([frame], device)), index % interval
            if age == 0:
                key, key_features = frame, features
            # the current frame is always the first key frame of the pairs, as `Pairs` requires
            pairs = Pairs(str(index), frame, *(([frame, key], [0, age]) if age else ([frame], [0])))
            of_pairs = tuple(torch.cat(x) for x in zip(features, key_features, strict=True)) if age else features
            for name, propagate in propagations.items():
                propagated = tuple(x[-1:] for x in propagate(network, of_pairs, pairs))
                [result] = recognise(network, propagated, frame.shape)
                add_frame(metrics[name].at(age), truth, result)
            progress()
    return {name: by_age.accuracy() for name, by_age in metrics.items()}


def recognise(network: DeepFeatureFlow[Any], features: Features, shape: Sequence[int]) -> list[Labels | Objects]:
    """Run the head on features and return its results.

    Args:
        network: The networks.
        features: The feature maps of N images.
        shape: The images' shape (H, W, ...).

    Returns:
        The label map (H, W) of each image, or its objects, with boxes in pixels.
    """
    height, width = shape[:2]
    raw = network.recognition.head(*features)
    if isinstance(network.recognition, DetectionNetwork):
        return list(detect(raw, height, width, network.recognition.regions))
    [probabilities] = network.recognition.predict(raw)
    ids = upsample(probabilities.float()).argmax(dim=1)[:, :height, :width].to(torch.uint8)
    return [np.asarray(x) for x in ids.cpu().numpy()]


def to_tensor(frames: Sequence[Image], device: torch.device | None = None) -> Tensor:
    """Return frames of one size as a normalised tensor (N, 3, H, W)."""
    if not len(frames):
        return torch.empty(0, device=device)
    return normalised(torch.from_numpy(np.stack(frames)).to(device))


def make_metric(task: ServedTask, classes: int) -> Metric:
    """Return an empty metric for a task."""
    return SegmentationMetric(classes) if task == "segmentation" else DetectionMetric(classes)


def add_frame(metric: Metric, truth: Truth, result: Labels | Objects) -> None:
    """Add one frame to a metric.

    Args:
        metric: The metric.
        truth: The frame's labels.
        result: The network's result.

    Raises:
        DataError: If the frame isn't labelled for the metric's task.
    """
    if isinstance(metric, SegmentationMetric):
        if truth.labels is None:
            raise DataError("the data have frames without pixel labels; evaluating segmentation needs them")
        assert isinstance(result, np.ndarray)
        metric.add(truth.labels, result)
    else:
        assert isinstance(metric, DetectionMetric)
        if truth.boxes is None:
            raise DataError("the data have frames without boxes; evaluating detection needs them")
        assert isinstance(result, Objects)
        metric.add(truth.boxes, result)


def _split_into_chunks(snippet: Snippet, max_pixels: int) -> Iterator[Pairs]:
    """Divide a snippet's pairs into chunks. The first key frame of each chunk is the current frame itself."""
    *older, current = list(snippet.frames)  # in order, because decoding video backwards is slow
    older.reverse()
    size = max(1, max_pixels // (current.shape[0] * current.shape[1]) - 1)
    for start in range(0, max(1, len(older)), size):
        keys = older[start : start + size]
        yield Pairs(snippet.name, current, [current, *keys], [0, *range(start + 1, start + 1 + len(keys))])


class MetricsByAge:
    """One metric for each key age."""

    def __init__(self, task: ServedTask, classes: int) -> None:
        """Start without images.

        Args:
            task: What the networks recognise.
            classes: The number of classes, with the background.
        """
        self._task: ServedTask = task
        self._classes = classes
        self._metrics: list[Metric] = []

    def at(self, age: int) -> Metric:
        """Return the metric of a key age, frames."""
        while len(self._metrics) <= age:
            self._metrics.append(make_metric(self._task, self._classes))
        return self._metrics[age]

    def accuracy(self) -> Accuracy:
        """Return the accuracy at the key ages seen so far."""
        by_age = tuple(metric.value() for metric in self._metrics)
        per_class = zip(*(metric.per_class() for metric in self._metrics), strict=True)
        means = (None if None in ages else float(np.mean(ages)) for ages in per_class)
        name = make_metric(self._task, self._classes).name
        return Accuracy(name, float(np.mean(by_age)), min(by_age), by_age, tuple(means))
