"""Measurement of one checkpoint's accuracy and speed."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keywarp.choices import PaperMotion
from keywarp.engines import Engine, load_bundle
from keywarp.experiments.errors import ExperimentError
from keywarp.experiments.presets import ROUNDS
from keywarp.experiments.report import machine
from keywarp.experiments.shallow_feature_flow import ShallowFeatureFlow
from keywarp.experiments.siftflow import engine_motion, open_siftflow
from keywarp.experiments.timing import FrameTimes, time_engines
from keywarp.export import export_bundle
from keywarp.networks import load_checkpoint
from keywarp.training.data import open_data
from keywarp.training.evaluation import (
    Accuracy,
    Propagation,
    copy_features,
    evaluate,
    recompute_features,
    warp_features,
)
from keywarp.training.process import TrainingProcess
from keywarp.training.recipe import Recipe
from keywarp.training.reporting import Reporter

PER_FRAME = "per frame"


@dataclass(frozen=True)
class Measurement:
    """The accuracy and speed of a checkpoint."""

    accuracy: dict[str, dict[str, Accuracy]]  # by data set, then by motion source
    runtime: dict[str, FrameTimes]  # by motion source
    interval: int  # key interval in frames
    size: tuple[int, int]  # height and width of the timed images

    def figures(self) -> dict[str, Any]:
        """Return everything in a form that JSON can hold."""
        return {
            "interval": self.interval,
            "accuracy": {data: {way: asdict(a) for way, a in ways.items()} for data, ways in self.accuracy.items()},
            "runtime": {
                way: {**asdict(timed), "fps": timed.frames_per_second(self.interval), "fps_per_frame": 1 / timed.key}
                for way, timed in self.runtime.items()
            },
            "machine": machine(),
            "height": self.size[0],
            "width": self.size[1],
        }


def measure_checkpoint(
    checkpoint: Path,
    recipe: Recipe,
    motions: Sequence[PaperMotion],
    work: Path,
    process: TrainingProcess,
    reporter: Reporter,
    runtime: bool = True,
) -> Measurement:
    """Measure a checkpoint on a recipe's data.

    Args:
        checkpoint: The checkpoint's file.
        recipe: The recipe, with the data and the key interval.
        motions: The motion sources to measure with.
        work: The folder for packages and optical flow.
        process: The process whose device the networks run on, except for timing.
        reporter: Shows the progress.
        runtime: Whether to measure the speed through the engine.

    Raises:
        keywarp.networks.CheckpointError: If the file isn't a checkpoint.
        keywarp.datasets.DataError: If data are missing or damaged.
        ExperimentError: If the checkpoint is for another task or number of classes than the data.
    """
    trained = load_checkpoint(checkpoint)
    data = open_data(recipe, work, reporter)
    if trained.options.task != recipe.task or trained.options.classes != len(data.classes):
        raise ExperimentError(
            f"{checkpoint} is for {trained.options.task} of {trained.options.classes} classes, "
            f"but the recipe's data are for {recipe.task} of {len(data.classes)}"
        )
    network = trained.network().to(process.device)
    ways: dict[str, Propagation] = {PER_FRAME: recompute_features}
    for motion in motions:
        ways[motion] = _propagation(motion, work)
    accuracy = {}
    for name, source in data.evaluation.items():
        reporter.stage(f"evaluating {name}", len(source))
        classes = len(data.classes)
        accuracy[name] = evaluate(network, source, classes, recipe.key_interval, ways, process.device, reporter.step)
    for way in ways.values():
        if isinstance(way, ShallowFeatureFlow):
            way.save()
    [first, *_] = data.evaluation.values()
    frames = next(iter(first.snippets(2))).frames
    timed: dict[str, FrameTimes] = {}
    if runtime:
        with tempfile.TemporaryDirectory() as folder:
            bundle = load_bundle(export_bundle(trained, Path(folder) / "bundle").path)
            reporter.stage(f"timing {', '.join(motions)}", ROUNDS)
            engines: dict[str, Engine] = {motion: Engine(bundle, motion=engine_motion(motion)) for motion in motions}
            timed = time_engines(engines, (frames[0], frames[-1]), ROUNDS, reporter)
    height, width = frames[-1].shape[:2]
    return Measurement(accuracy, timed, recipe.key_interval, (height, width))


def _propagation(motion: PaperMotion, work: Path) -> Propagation:
    if motion == "network":
        return warp_features
    if motion == "none":
        return copy_features
    return ShallowFeatureFlow(open_siftflow(motion), work / f"{motion}.npz")
