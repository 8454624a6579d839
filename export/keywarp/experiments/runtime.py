"""How fast a run's networks are, through the engine that serves them."""

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from keywarp.choices import PaperMotion
from keywarp.engines import Bundle, Engine, load_bundle
from keywarp.engines.manifest import MANIFEST
from keywarp.experiments.laboratory import Laboratory, Run, write_json
from keywarp.experiments.siftflow import engine_motion
from keywarp.export import export_bundle
from keywarp.networks import load_checkpoint
from keywarp.training.reporting import Reporter

ENOUGH = 3  # rounds of an engine that took longer than ...
LONG = 5.0  # seconds for them


@dataclass(frozen=True)
class Runtime:
    """Median seconds per frame: the image prepared, the networks run, the result read off."""

    key: float
    propagated: float
    backend: str  # with its precision

    def frames_per_second(self, interval: int) -> float:
        """Of a stream with a key frame every `interval` frames."""
        return interval / (self.key + (interval - 1) * self.propagated)


def measure_runtime(
    laboratory: Laboratory, name: str, networks: Mapping[str, tuple[Run, PaperMotion]]
) -> dict[str, Runtime]:
    """Time an experiment's networks on this machine, in turns; at once if that has been done.

    Args:
        laboratory: Where the networks are, and where the result is kept.
        name: Whose result it is: another one is measured anew, since a machine isn't always as fast.
        networks: By what the experiment calls them: runs of one task, and where the features come from between key
            frames.
    """
    [task] = {run.task for run, _ in networks.values()}
    file = laboratory.work / task / f"runtime-{name}.json"
    if file.exists():
        known = {label: Runtime(**found) for label, found in json.loads(file.read_text()).items()}
        if known.keys() == networks.keys():
            return known
    engines = {
        label: Engine(run_bundle(laboratory, run), motion=engine_motion(motion))
        for label, (run, motion) in networks.items()
    }
    frames = next(iter(laboratory.evaluation(task).snippets(2))).frames
    laboratory.reporter.stage(f"timing {task}: {', '.join(networks)}", laboratory.preset.rounds)
    timed = time_engines(engines, (frames[0], frames[-1]), laboratory.preset.rounds, laboratory.reporter)
    write_json({label: asdict(runtime) for label, runtime in timed.items()}, file)
    return timed


def run_bundle(laboratory: Laboratory, run: Run) -> Bundle:
    """A run's networks as they are served."""
    checkpoint = laboratory.checkpoint(run)
    folder = checkpoint.parent / "bundle"
    if not (folder / MANIFEST).exists():  # which is written last
        export_bundle(load_checkpoint(checkpoint), folder)
    return load_bundle(folder)


def time_engines(
    engines: Mapping[str, Engine],
    frames: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    rounds: int,
    reporter: Reporter,
) -> dict[str, Runtime]:
    """Time engines.

    Args:
        engines: By name. They take turns, so that what else the machine does, or how fast it is just now, is the same
            for all.
        frames: A key frame and one to propagate to.
        rounds: How often each; one that is slow drops out once it has had some.
        reporter: Told about each round.
    """
    keys: dict[str, list[float]] = {name: [] for name in engines}
    propagated: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(rounds + 1):  # the first one compiles
        for name, engine in engines.items():
            if turn > ENOUGH and sum(keys[name]) + sum(propagated[name]) > LONG:
                continue
            result, state = engine.key(frames[0])
            keys[name].append(result.inference + result.postprocess)
            result = engine.propagate(frames[1], state)
            propagated[name].append(result.inference + result.postprocess)
        if turn:
            reporter.step()
    return {
        name: Runtime(
            statistics.median(keys[name][1:]),
            statistics.median(propagated[name][1:]),
            f"{engine.backend.name} {engine.backend.precision}",
        )
        for name, engine in engines.items()
    }
