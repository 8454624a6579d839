"""How fast a run's networks are, through the engine that serves them."""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from keywarp.engines import Bundle, Engine, load_bundle
from keywarp.engines.manifest import MANIFEST
from keywarp.engines.motion import MotionName
from keywarp.experiments.laboratory import Laboratory, Run, write_json
from keywarp.export import export_bundle
from keywarp.networks import load_checkpoint
from keywarp.training.reporting import Reporter

ENOUGH = 3  # rounds, once they take longer than ...
LONG = 20.0  # seconds


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
    laboratory: Laboratory, run: Run, motions: Sequence[MotionName] = ("network",)
) -> dict[str, Runtime]:
    """Time a run's networks on this machine, by motion source; at once if that has been done."""
    file = laboratory.work / run.name / "runtime.json"
    known: dict[str, Runtime] = {}
    if file.exists():
        known = {motion: Runtime(**found) for motion, found in json.loads(file.read_text()).items()}
    missing = [motion for motion in motions if motion not in known]
    if missing:
        bundle = run_bundle(laboratory, run)
        frames = next(iter(laboratory.evaluation(run.task).snippets(2))).frames
        laboratory.reporter.stage(f"timing {run.name}: {', '.join(missing)}", laboratory.preset.rounds)
        known |= time_bundle(bundle, missing, (frames[0], frames[-1]), laboratory.preset.rounds, laboratory.reporter)
        write_json({motion: asdict(runtime) for motion, runtime in known.items()}, file)
    return {motion: known[motion] for motion in motions}


def run_bundle(laboratory: Laboratory, run: Run) -> Bundle:
    """A run's networks as they are served."""
    checkpoint = laboratory.checkpoint(run)
    folder = checkpoint.parent / "bundle"
    if not (folder / MANIFEST).exists():  # which is written last
        export_bundle(load_checkpoint(checkpoint), folder)
    return load_bundle(folder)


def time_bundle(
    bundle: Bundle,
    motions: Sequence[MotionName],
    frames: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    rounds: int,
    reporter: Reporter,
) -> dict[str, Runtime]:
    """Time a bundle.

    Args:
        bundle: The networks.
        motions: Motion sources, which take turns.
        frames: A key frame and one to propagate to.
        rounds: How often, at most; fewer if it takes long.
        reporter: Told about each round.
    """
    engines = {motion: Engine(bundle, motion=motion) for motion in motions}
    keys: dict[str, list[float]] = {motion: [] for motion in motions}
    propagated: dict[str, list[float]] = {motion: [] for motion in motions}
    started = time.monotonic()
    for turn in range(rounds + 1):  # the first one compiles
        for motion, engine in engines.items():
            inferred, state = engine.key(frames[0])
            keys[motion].append(inferred.inference + inferred.postprocess)
            inferred = engine.propagate(frames[1], state)
            propagated[motion].append(inferred.inference + inferred.postprocess)
        if turn:
            reporter.step()
        if turn >= ENOUGH and time.monotonic() - started > LONG:
            break
    return {
        motion: Runtime(
            statistics.median(keys[motion][1:]),
            statistics.median(propagated[motion][1:]),
            f"{engine.backend.name} {engine.backend.precision}",
        )
        for motion, engine in engines.items()
    }
