"""Timing of a run's networks in the engine that serves them."""

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from keywarp.choices import PaperMotion
from keywarp.engines import Bundle, Engine, load_bundle
from keywarp.engines.manifest import MANIFEST
from keywarp.experiments.runner import Run, Runner, write_json
from keywarp.experiments.siftflow import engine_motion
from keywarp.export import export_bundle
from keywarp.networks import load_checkpoint
from keywarp.training.reporting import Reporter

MIN_ROUNDS = 3  # number of rounds for which every engine is timed
MAX_SECONDS = 5.0  # an engine that has taken longer after these rounds isn't timed any further


@dataclass(frozen=True)
class FrameTimes:
    """Median times per frame in seconds: image preparation, inference and post-processing."""

    key: float
    propagated: float
    backend: str  # names of the backend and precision

    def frames_per_second(self, interval: int) -> float:
        """Return the throughput of one stream with a key frame every `interval` frames."""
        return interval / (self.key + (interval - 1) * self.propagated)


def measure_frame_times(
    runner: Runner, name: str, networks: Mapping[str, tuple[Run, PaperMotion]]
) -> dict[str, FrameTimes]:
    """Time an experiment's networks on this machine, or load the times if they have been measured before.

    Args:
        runner: The runner that trains the networks. Times are kept in its folder.
        name: The experiment's name. Experiments don't share times, since the machine's speed varies.
        networks: Runs of one task and their motion sources, by a label that the experiment chooses.

    Returns:
        The times by the same labels.
    """
    [task] = {run.task for run, _ in networks.values()}
    file = runner.work / task / f"runtime-{name}.json"
    if file.exists():
        known = {label: FrameTimes(**times) for label, times in json.loads(file.read_text()).items()}
        if known.keys() == networks.keys():
            return known
    engines = {
        label: Engine(run_bundle(runner, run), motion=engine_motion(motion))
        for label, (run, motion) in networks.items()
    }
    frames = next(iter(runner.evaluation(task).snippets(2))).frames
    runner.reporter.stage(f"timing {task}: {', '.join(networks)}", runner.preset.rounds)
    timed = time_engines(engines, (frames[0], frames[-1]), runner.preset.rounds, runner.reporter)
    write_json({label: asdict(times) for label, times in timed.items()}, file)
    return timed


def run_bundle(runner: Runner, run: Run) -> Bundle:
    """Return the bundle of a run's networks, which is exported if it doesn't exist."""
    checkpoint = runner.checkpoint(run)
    folder = checkpoint.parent / "bundle"
    if not (folder / MANIFEST).exists():  # the manifest is written last
        export_bundle(load_checkpoint(checkpoint), folder)
    return load_bundle(folder)


def time_engines(
    engines: Mapping[str, Engine],
    frames: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    rounds: int,
    reporter: Reporter,
    max_seconds: float = MAX_SECONDS,
) -> dict[str, FrameTimes]:
    """Time engines alternately, so that changes of the machine's speed affect all of them alike.

    Args:
        engines: The engines by name.
        frames: A key frame and a frame to propagate to.
        rounds: The number of rounds in which each engine is timed. Slow engines are timed in fewer.
        reporter: The reporter that shows the rounds that are done.
        max_seconds: The time in seconds after which an engine isn't timed any further, once it has done `MIN_ROUNDS`
            rounds.

    Returns:
        The median times by engine.
    """
    keys: dict[str, list[float]] = {name: [] for name in engines}
    propagated: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds + 1):  # the first round compiles, so it isn't counted
        for name, engine in engines.items():
            if number > MIN_ROUNDS and sum(keys[name]) + sum(propagated[name]) > max_seconds:
                continue
            result, state = engine.key(frames[0])
            keys[name].append(result.inference + result.postprocess)
            result = engine.propagate(frames[1], state)
            propagated[name].append(result.inference + result.postprocess)
        if number:
            reporter.step()
    return {
        name: FrameTimes(
            statistics.median(keys[name][1:]),
            statistics.median(propagated[name][1:]),
            f"{engine.backend.name} {engine.backend.precision}",
        )
        for name, engine in engines.items()
    }
