"""Speed of a run's networks in the engine that serves them."""

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

MIN_ROUNDS = 3  # rounds that every engine is timed for
MAX_SECONDS = 5.0  # after these rounds, an engine that has taken longer isn't timed any further


@dataclass(frozen=True)
class FrameTimes:
    """Median times per frame in seconds: image preparation, inference and post-processing."""

    key: float
    propagated: float
    backend: str  # backend and precision

    def frames_per_second(self, interval: int) -> float:
        """Return the throughput of one stream with a key frame every `interval` frames."""
        return interval / (self.key + (interval - 1) * self.propagated)


def measure_frame_times(
    runner: Runner, name: str, networks: Mapping[str, tuple[Run, PaperMotion]]
) -> dict[str, FrameTimes]:
    """Time an experiment's networks on this machine in turns, or return the times that were kept.

    Args:
        runner: Has the networks, and keeps the times in its folder.
        name: The experiment's name. Times aren't shared between experiments, since the machine's speed varies.
        networks: Runs of one task and their motion sources, by the experiment's name for them.

    Returns:
        The times by the same names.
    """
    [task] = {run.task for run, _ in networks.values()}
    file = runner.work / task / f"runtime-{name}.json"
    if file.exists():
        known = {label: FrameTimes(**found) for label, found in json.loads(file.read_text()).items()}
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
    """Return the bundle of a run's networks, after exporting it if it doesn't exist."""
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
    """Time engines in turns, so that changes of the machine's speed affect all of them alike.

    Args:
        engines: The engines by name.
        frames: A key frame and a frame to propagate to.
        rounds: How often each engine is timed. Slow engines are timed less often.
        reporter: Counts the rounds.
        max_seconds: An engine that has taken longer than this after `MIN_ROUNDS` rounds isn't timed any further.

    Returns:
        The median times by engine.
    """
    keys: dict[str, list[float]] = {name: [] for name in engines}
    propagated: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(rounds + 1):  # the first round isn't counted: it compiles
        for name, engine in engines.items():
            if turn > MIN_ROUNDS and sum(keys[name]) + sum(propagated[name]) > max_seconds:
                continue
            result, state = engine.key(frames[0])
            keys[name].append(result.inference + result.postprocess)
            result = engine.propagate(frames[1], state)
            propagated[name].append(result.inference + result.postprocess)
        if turn:
            reporter.step()
    return {
        name: FrameTimes(
            statistics.median(keys[name][1:]),
            statistics.median(propagated[name][1:]),
            f"{engine.backend.name} {engine.backend.precision}",
        )
        for name, engine in engines.items()
    }
