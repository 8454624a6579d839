"""Accuracy by the paper's protocol, and as a stream sees it; both by the age of the key frame.

The paper evaluates l pairs (k, i), k = i - l + 1, ..., i, for each frame i with ground truth, and averages (section
5.2). Here every age i - k is measured by itself, over all labelled frames; their mean is the paper's figure, and the
worst tells what a user sees just before the next key frame.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from keywarp.datasets import DataError, Image, Labels
from keywarp.datasets.samples import Snippet, SnippetSource, Truth
from keywarp.networks import DeepFeatureFlow, DetectionNetwork
from keywarp.networks.regions import Objects, detect
from keywarp.training.images import normalised
from keywarp.training.joint import enlarged
from keywarp.training.metrics import DetectionMetric, Metric, SegmentationMetric

PIXELS = 1 << 20  # of all images that go through a network at once
Features = tuple[Tensor, ...]


@dataclass(frozen=True)
class Accuracy:
    """A metric's values, 0..1."""

    metric: str
    mean: float  # over the ages
    worst: float  # of the ages
    by_age: tuple[float, ...]  # frames since the key frame: 0, 1, ..., l - 1
    per_class: tuple[float | None, ...]  # means over all measured ages; None: the class isn't in the truth

    def until(self, interval: int) -> "Accuracy":
        """The same of a shorter key interval."""
        ages = tuple(self.by_age[:interval])
        return replace(self, mean=float(np.mean(ages)), worst=min(ages), by_age=ages)


@dataclass(frozen=True)
class Pairs:
    """A labelled frame and the key frames that its features may come from."""

    name: str
    current: Image
    keys: Sequence[Image]  # by age; the first one is the current frame itself
    ages: Sequence[int]  # of the key frames


class Propagation(Protocol):
    """Where the current frame's features come from."""

    def __call__(self, network: DeepFeatureFlow[Any], features: Features, pairs: Pairs) -> Features:
        """Key features -> the current frame's.

        Args:
            network: Whose features they are.
            features: Per map (l, C, H, W), of the key frames.
            pairs: The frames.
        """
        ...


def by_network(network: DeepFeatureFlow[Any], features: Features, pairs: Pairs) -> Features:
    """Deep feature flow: along the flow network's motion. The youngest key frame is the frame itself."""
    keys = tensor(pairs.keys[1:], features[0].device)
    if not len(keys):
        return features
    current = tensor([pairs.current], keys.device).expand_as(keys)
    warped = network.propagate(tuple(x[1:] for x in features), current, keys)
    return tuple(torch.cat((x[:1], w.to(x))) for x, w in zip(features, warped, strict=True))


def by_copying(network: DeepFeatureFlow[Any], features: Features, pairs: Pairs) -> Features:  # noqa: ARG001
    """Nothing moves: the key frame's features as they are."""
    return features


def by_computing(network: DeepFeatureFlow[Any], features: Features, pairs: Pairs) -> Features:  # noqa: ARG001
    """Every frame is a key frame (the paper's Frame): the same for all ages."""
    return tuple(x[:1].expand_as(x) for x in features)


PROPAGATIONS: dict[str, Propagation] = {"per frame": by_computing, "propagated": by_network, "copied": by_copying}


def evaluate(
    network: DeepFeatureFlow[Any],
    source: SnippetSource,
    classes: int,
    interval: int,
    propagations: Mapping[str, Propagation] = PROPAGATIONS,
    device: torch.device | None = None,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Accuracy]:
    """Measure by the paper's protocol, in several ways at once.

    Args:
        network: The networks; set to evaluation mode.
        source: Labelled frames, with the frames before them.
        classes: With the background.
        interval: l, frames.
        propagations: The ways, by name.
        device: Where the network is; None: on the CPU.
        progress: Called once a labelled frame.
    """
    network.eval()
    metrics = {name: _ByAge(network, classes) for name in propagations}
    with torch.inference_mode():
        for snippet in source.snippets(interval):
            for number, pairs in enumerate(_chunks(snippet)):
                features = network.features(tensor(pairs.keys, device))
                for name, propagate in propagations.items():
                    moved = propagate(network, features, pairs)
                    for age, found in zip(pairs.ages, recognise(network, moved, pairs.current.shape), strict=True):
                        if age or not number:  # the frame itself counts once
                            add(metrics[name].at(age), snippet.truth, found)
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
    """Run a labelled video as streams do (Algorithm 1), in several ways at once; otherwise as `evaluate`.

    A new shot doesn't restart the interval: a camera's stream doesn't either, so what a cut costs is in the figures.
    """
    network.eval()
    metrics = {name: _ByAge(network, classes) for name in propagations}
    key: Image = np.empty(0, np.uint8)
    key_features: Features = ()
    with torch.inference_mode():
        for index, (frame, truth) in enumerate(frames):
            features, age = network.features(tensor([frame], device)), index % interval
            if age == 0:
                key, key_features = frame, features
            pairs = Pairs(str(index), frame, *(([frame, key], [0, age]) if age else ([frame], [0])))
            known = tuple(torch.cat(x) for x in zip(features, key_features, strict=True)) if age else features
            for name, propagate in propagations.items():
                moved = propagate(network, known, pairs)
                add(metrics[name].at(age), truth, recognise(network, tuple(x[-1:] for x in moved), frame.shape)[0])
            progress()
    return {name: by_age.accuracy() for name, by_age in metrics.items()}


def recognise(network: DeepFeatureFlow[Any], features: Features, shape: Sequence[int]) -> list[Labels | Objects]:
    """Features of N images of one shape (H, W, ...) -> what is recognised on each, in pixels."""
    height, width = shape[:2]
    raw = network.recognition.head(*features)
    if isinstance(network.recognition, DetectionNetwork):
        return list(detect(raw, height, width, network.recognition.regions))
    [probabilities] = network.recognition.predict(raw)
    ids = enlarged(probabilities.float()).argmax(dim=1)[:, :height, :width].to(torch.uint8)
    return [np.asarray(x) for x in ids.cpu().numpy()]


def tensor(frames: Sequence[Image], device: torch.device | None = None) -> Tensor:
    """Frames of one size -> (N, 3, H, W), normalised."""
    if not len(frames):
        return torch.empty(0, device=device)
    return normalised(torch.from_numpy(np.stack(frames)).to(device))


def metric_for(network: DeepFeatureFlow[Any], classes: int) -> Metric:
    """The network's task's."""
    return SegmentationMetric(classes) if network.recognition.task == "segmentation" else DetectionMetric(classes)


def add(metric: Metric, truth: Truth, found: Labels | Objects) -> None:
    """Count a frame.

    Raises:
        DataError: Its truth is of another task.
    """
    if isinstance(metric, SegmentationMetric):
        if truth.labels is None:
            raise DataError("the data have frames without pixel labels, which segmentation is measured on")
        assert isinstance(found, np.ndarray)
        metric.add(truth.labels, found)
    else:
        assert isinstance(metric, DetectionMetric)
        if truth.boxes is None:
            raise DataError("the data have frames without boxes, which detection is measured on")
        assert isinstance(found, Objects)
        metric.add(truth.boxes, found)


def _chunks(snippet: Snippet) -> Iterator[Pairs]:
    """The pairs of a snippet, so many at once as fit; the frame itself leads every chunk."""
    *older, current = list(snippet.frames)  # video is best read forwards
    older.reverse()
    size = max(1, PIXELS // (current.shape[0] * current.shape[1]) - 1)
    for start in range(0, max(1, len(older)), size):
        part = older[start : start + size]
        yield Pairs(snippet.name, current, [current, *part], [0, *range(start + 1, start + 1 + len(part))])


class _ByAge:
    """A metric for each key age that there are frames of."""

    def __init__(self, network: DeepFeatureFlow[Any], classes: int) -> None:
        self._network = network
        self._classes = classes
        self._metrics: list[Metric] = []

    def at(self, age: int) -> Metric:
        while len(self._metrics) <= age:
            self._metrics.append(metric_for(self._network, self._classes))
        return self._metrics[age]

    def accuracy(self) -> Accuracy:
        by_age = tuple(metric.value() for metric in self._metrics)
        per_class = zip(*(metric.per_class() for metric in self._metrics), strict=True)
        means = (None if None in ages else float(np.mean(ages)) for ages in per_class)
        name = metric_for(self._network, self._classes).name
        return Accuracy(name, float(np.mean(by_age)), min(by_age), by_age, tuple(means))
