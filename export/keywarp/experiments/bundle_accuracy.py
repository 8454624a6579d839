"""The accuracy of a bundle on labelled data, as the engine runs it, in several precisions.

Agreement with fp32 says how far results change; only labels say whether they become worse.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from keywarp.datasets import Image, LabelledClip
from keywarp.datasets.samples import Snippet, Truth
from keywarp.engines import Bundle, Detections, Engine, FrameResult, LabelMap, MotionSource, Output, Precision
from keywarp.engines.motion.tracking import DirectTracker
from keywarp.experiments.errors import ExperimentError
from keywarp.experiments.labelled import prepared
from keywarp.experiments.report import machine
from keywarp.networks.regions import Objects
from keywarp.training.data import TrainingData, open_data
from keywarp.training.evaluation import Accuracy, MetricsByAge, add_frame
from keywarp.training.recipe import Recipe
from keywarp.training.reporting import Reporter


@dataclass(frozen=True)
class PrecisionAccuracy:
    """The accuracy in one precision."""

    backend: str  # and precision, as they really were
    per_frame: Accuracy  # the network on every frame
    by_motion: dict[str, Accuracy]  # by motion source, at every key age below the key interval


@dataclass(frozen=True)
class BundleMeasurement:
    """The accuracy of a bundle."""

    bundle: str
    interval: int  # key interval, frames
    accuracy: dict[str, dict[str, PrecisionAccuracy]]  # by data set, then by precision as it was asked for

    def figures(self) -> dict[str, Any]:
        """Return everything in a form that JSON can hold."""
        return {**asdict(self), "machine": machine()}


def measure_bundle(
    bundle: Bundle,
    recipe: Recipe,
    motions: Sequence[MotionSource],
    precisions: Sequence[Precision],
    work: Path,
    reporter: Reporter,
) -> BundleMeasurement:
    """Measure a bundle on a recipe's data.

    Args:
        bundle: The bundle.
        recipe: The recipe, with the data and the key interval.
        motions: The motion sources, none of which needs a video's own motion vectors.
        precisions: The precisions.
        work: The folder for packages and labels.
        reporter: Shows the progress.

    Raises:
        keywarp.datasets.DataError: If data are missing or damaged.
        keywarp.engines.EngineError: If the bundle can't be run.
        ExperimentError: If the bundle has another task than the data, or lacks one of their classes.
    """
    if bundle.manifest.task != recipe.task:
        raise ExperimentError(
            f"{bundle.path} is for {bundle.manifest.task}, but the recipe's data are for {recipe.task}"
        )
    data = open_data(recipe, work, reporter)
    return measure_on_data(bundle, data, recipe.key_interval, motions, precisions, reporter)


def measure_on_data(
    bundle: Bundle,
    data: TrainingData,
    interval: int,
    motions: Sequence[MotionSource],
    precisions: Sequence[Precision],
    reporter: Reporter,
) -> BundleMeasurement:
    """Measure a bundle on labelled data of its task.

    Clips are run as streams, with their cuts; of other data each labelled frame is seen at every key age.

    Args:
        bundle: The bundle.
        data: The data.
        interval: The key interval, frames.
        motions: See `measure_bundle`.
        precisions: See `measure_bundle`.
        reporter: Shows the progress.

    Raises:
        keywarp.engines.EngineError: If the bundle can't be run.
        ExperimentError: If the bundle lacks one of the data's classes.
    """
    ids = _data_ids(bundle, data)
    if bundle.manifest.detection is not None:
        bundle = prepared(bundle)  # average precision looks at uncertain boxes too
    accuracy: dict[str, dict[str, PrecisionAccuracy]] = {}
    for name, source in data.evaluation.items():
        accuracy[name] = {}
        for precision in precisions:
            reporter.stage(f"{name} in {precision}", len(motions) * len(source))
            by_motion: dict[str, Accuracy] = {}
            for motion in motions:
                keys, propagated = (MetricsByAge(bundle.manifest.task, len(data.classes)) for _ in range(2))
                engine = Engine(bundle, precision=precision, motion=motion)
                try:
                    for found in _results(engine, source, interval):
                        output = _in_data(found.result.output, found.image, ids)
                        if found.is_key:
                            add_frame(keys.at(0), found.truth, output)
                            reporter.step()
                        if found.age is not None:
                            add_frame(propagated.at(found.age), found.truth, output)
                finally:
                    engine.close()
                per_frame, by_motion[str(motion)] = keys.accuracy(), propagated.accuracy()
            backend = f"{engine.backend.name} {engine.backend.precision}"
            accuracy[name][precision] = PrecisionAccuracy(backend, per_frame, by_motion)
    return BundleMeasurement(bundle.name, interval, accuracy)


@dataclass(frozen=True, eq=False)
class _Found:
    """The result of a labelled frame."""

    result: FrameResult
    image: Image
    truth: Truth
    age: int | None  # key age at which it counts, or None if it is only what the network finds on every frame
    is_key: bool  # whether the network itself ran on the frame


def _results(engine: Engine, source: Any, interval: int) -> Iterator[_Found]:
    if isinstance(source, LabelledClip):
        truths = (Truth(labels=labels) for labels in source.labels)
        yield from _stream_results(engine, zip(source.clip.frames, truths, strict=True), interval)
    else:
        for snippet in source.snippets(interval):
            yield from _snippet_results(engine, snippet)


def _stream_results(engine: Engine, frames: Iterable[tuple[Image, Truth]], interval: int) -> Iterator[_Found]:
    """Run a stream, and the network on its propagated frames as well."""
    for index, (image, truth) in enumerate(frames):
        age = index % interval
        result, fresh = engine.key(image)
        yield _Found(result, image, truth, None if age else 0, is_key=True)
        if age == 0:
            state = fresh
        else:
            yield _Found(engine.propagate(image, state), image, truth, age, is_key=False)


def _snippet_results(engine: Engine, snippet: Snippet) -> Iterator[_Found]:
    """Propagate to a snippet's last frame from each of its frames."""
    frames = [np.asarray(frame) for frame in snippet.frames]
    current = frames[-1]
    for start in range(len(frames) - 1):
        _, state = engine.key(frames[start])
        # Only motion that is followed from frame to frame needs the frames between.
        for frame in () if isinstance(state.tracker, DirectTracker | None) else frames[start + 1 : -1]:
            engine.propagate(frame, state)
        result = engine.propagate(current, state)
        yield _Found(result, current, snippet.truth, len(frames) - 1 - start, is_key=False)
    result, _ = engine.key(current)
    yield _Found(result, current, snippet.truth, 0, is_key=True)


def _data_ids(bundle: Bundle, data: TrainingData) -> NDArray[np.int64]:
    """Return the data's class ids by the bundle's; 0, the background, for classes that the data don't have."""
    known = {name: number for number, (name, _) in enumerate(data.classes)}
    classes = bundle.manifest.classes
    names = {entry.name for entry in classes}
    missing = [name for name in list(known)[1:] if name not in names]
    if missing:
        raise ExperimentError(
            f"{bundle.path} doesn't know the data's class {missing[0]!r}: it has {', '.join(sorted(names))}"
        )
    ids = np.zeros(1 + max(entry.id for entry in classes), np.int64)
    for entry in classes:
        ids[entry.id] = known.get(entry.name, 0)
    return ids


def _in_data(output: Output, image: Image, ids: NDArray[np.int64]) -> NDArray[np.uint8] | Objects:
    """Return a result with the data's class ids, labels at the image's size."""
    if isinstance(output, LabelMap):
        labels = ids[output.labels].astype(np.uint8)
        height, width = image.shape[:2]
        return np.asarray(cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
    assert isinstance(output, Detections)
    classes = ids[output.class_id]
    chosen = classes > 0
    return Objects(
        torch.from_numpy(output.xyxy[chosen]),
        torch.from_numpy(output.confidence[chosen]),
        torch.from_numpy(classes[chosen]),
    )
