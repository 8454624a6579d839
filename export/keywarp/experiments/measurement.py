"""Accuracy and speed of one checkpoint."""

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
from keywarp.experiments.runtime import Runtime, time_engines
from keywarp.experiments.shallow import ShallowFlow
from keywarp.experiments.siftflow import engine_motion, open_siftflow
from keywarp.export import export_bundle
from keywarp.networks import load_checkpoint
from keywarp.training.compute import Compute
from keywarp.training.data import open_data
from keywarp.training.evaluation import Accuracy, Propagation, by_computing, by_copying, by_network, evaluate
from keywarp.training.recipe import Recipe
from keywarp.training.reporting import Reporter

PER_FRAME = "per frame"


@dataclass(frozen=True)
class Measurement:
    """What a checkpoint reaches."""

    accuracy: dict[str, dict[str, Accuracy]]  # by data, then by where the features come from
    runtime: dict[str, Runtime]  # by the latter
    interval: int  # frames
    size: tuple[int, int]  # of the images that were timed: height, width

    def figures(self) -> dict[str, Any]:
        """For JSON."""
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
    compute: Compute,
    reporter: Reporter,
    runtime: bool = True,
) -> Measurement:
    """Measure a checkpoint on a recipe's data.

    Args:
        checkpoint: Whose networks.
        recipe: Says the data, and the key interval.
        motions: Where the features between key frames come from: `network`, `none`, `sift-fast`, `sift-slow`.
        work: Folder for packages and optical flow.
        compute: Where the networks run, but for timing.
        reporter: Told about progress.
        runtime: Whether to time them through the engine.

    Raises:
        keywarp.networks.CheckpointError: It isn't a checkpoint.
        keywarp.datasets.DataError: The data can't be had.
        ExperimentError: The checkpoint is of another task or of other classes than the data.
    """
    trained = load_checkpoint(checkpoint)
    data = open_data(recipe, work, reporter)
    if trained.options.task != recipe.task or trained.options.classes != len(data.classes):
        raise ExperimentError(
            f"{checkpoint} is for {trained.options.task} of {trained.options.classes} classes, "
            f"the recipe's data for {recipe.task} of {len(data.classes)}"
        )
    network = trained.network().to(compute.device)
    ways: dict[str, Propagation] = {PER_FRAME: by_computing}
    for motion in motions:
        ways[motion] = _propagation(motion, work)
    accuracy = {}
    for name, source in data.evaluation.items():
        reporter.stage(f"evaluating {name}", len(source))
        classes = len(data.classes)
        accuracy[name] = evaluate(network, source, classes, recipe.key_interval, ways, compute.device, reporter.step)
    for way in ways.values():
        if isinstance(way, ShallowFlow):
            way.save()
    [first, *_] = data.evaluation.values()
    frames = next(iter(first.snippets(2))).frames
    timed: dict[str, Runtime] = {}
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
        return by_network
    if motion == "none":
        return by_copying
    return ShallowFlow(open_siftflow(motion), work / f"{motion}.npz")
