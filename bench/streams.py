"""Measures how many frames of several streams a processor does, with and without lanes.

Each stream keeps two frames of the demo's video in flight, so the processor is always busy. Lanes let frames of
different streams run at the same time, each on its share of the cores. All settings take turns in one process; the
figures are medians over the rounds. Latency is the time from a frame's submission to its result.

Example: python -m bench.streams --model models/street --picture streams.png
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.imports import machine
from keywarp.client import open_source
from keywarp.commands.other_work import OtherWork
from keywarp.commands.sample_video import sample_video
from keywarp.engines import (
    Engine,
    Executor,
    FixedInterval,
    FrameKind,
    FrameResult,
    Precision,
    StreamSession,
    load_bundle,
    usual_lanes,
)

IN_FLIGHT = 2  # frames of a stream
Frames = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class Round:
    """What one measurement gave."""

    fps: float  # of all streams together
    propagated: float  # seconds, median latency of propagated frames
    propagated_worst: float  # seconds, their 99th percentile
    key_worst: float  # seconds, the 99th percentile of key frames' latency
    memory: int  # bytes of this process, with the state of all streams


@dataclass(frozen=True)
class Figure:
    """The medians of one setting."""

    streams: int
    lanes: int
    fps: float
    propagated: float
    propagated_worst: float
    key_worst: float
    memory: int  # bytes that the streams add to this process, key states and the runtime's buffers included


def resident() -> int:
    """Return the memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def run_stream(executor: Executor, session: StreamSession, frames: Frames) -> list[tuple[bool, float]]:
    """Run a stream, and return for each frame whether it is a key frame, and its latency in seconds."""
    waiting: list[tuple[float, Future[FrameResult]]] = []
    done: list[tuple[bool, float]] = []

    def finish() -> None:
        started, future = waiting.pop(0)
        result = future.result()
        done.append((result.kind is FrameKind.KEY, time.perf_counter() - started))

    for frame in frames:
        if len(waiting) == IN_FLIGHT:
            finish()
        waiting.append((time.perf_counter(), executor.submit(session, frame)))
    while waiting:
        finish()
    return done


def demo_frames(number: int) -> Frames:
    """Return the first frames of the demo's video."""
    with open_source(str(sample_video())) as source:
        return [frame.image for frame, _ in zip(source, range(number), strict=False)]


def warm_engine(model: Path, lanes: int, frames: Frames, precision: Precision = "auto", slices: int = 1) -> Engine:
    """Open a bundle, and run each of its programs."""
    engine = Engine(load_bundle(model), precision=precision, lanes=lanes, slices=slices)
    for lane in (None, *range(lanes)):
        session = StreamSession(engine, FixedInterval(2))
        for frame in frames[:4]:
            session.process(frame, lane=lane)
    return engine


def measure(engine: Engine, lanes: int, streams: int, frames: Frames, interval: int) -> Round:
    """Run streams at the same time."""
    executor = Executor(lanes)
    sessions = [StreamSession(engine, FixedInterval(interval, number % interval)) for number in range(streams)]
    with ThreadPoolExecutor(streams) as pool:
        started = time.perf_counter()
        runs = [*pool.map(lambda session: run_stream(executor, session, frames), sessions)]
        seconds = time.perf_counter() - started
    memory = resident()
    executor.close()
    propagated = [latency for run in runs for is_key, latency in run if not is_key]
    keys = [latency for run in runs for is_key, latency in run if is_key]
    p50, p99 = np.percentile(propagated, [50, 99])
    return Round(streams * len(frames) / seconds, float(p50), float(p99), float(np.percentile(keys, 99)), memory)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/street"), help="the bundle (default: street)")
    parser.add_argument("--precision", default="auto", help="the precision (default: auto)")
    parser.add_argument("--streams", default="1,4,16,64", help="numbers of streams (default: 1,4,16,64)")
    parser.add_argument("--lanes", type=int, default=0, help="lanes to compare with one (default: the server's)")
    parser.add_argument("--interval", type=int, default=10, help="the key interval (default: 10)")
    parser.add_argument("--frames", type=int, default=60, help="frames of all streams together in a round, at least")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each setting (default: 5)")
    parser.add_argument("--picture", type=Path, help="draw frames a second over the number of streams, a PNG or SVG")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    lanes = arguments.lanes or usual_lanes()
    counts = [int(count) for count in arguments.streams.split(",")]
    frames = demo_frames(6 * arguments.interval)
    engine = warm_engine(arguments.model, lanes, frames, arguments.precision)
    settings = [(count, some) for count in counts for some in (1, lanes)]
    rounds: dict[tuple[int, int], list[Round]] = {setting: [] for setting in settings}
    before, others = resident(), OtherWork()
    for number in range(arguments.rounds):
        for count, some in settings:
            print(f"round {number + 1}: {count} streams, {some} lanes", file=sys.stderr, flush=True)
            share = max(2 * arguments.interval, arguments.frames // count)
            rounds[count, some].append(measure(engine, some, count, frames[:share], arguments.interval))
    figures = [_figure(*setting, found, before) for setting, found in rounds.items()]
    if arguments.picture:
        draw(figures, engine.bundle.name, arguments.picture)
    height, width = frames[0].shape[:2]
    about = {
        "model": engine.bundle.name,
        "motion": engine.motion,
        "interval": arguments.interval,
        "size": f"{width}x{height}",
        "runtime": f"{engine.backend.name} {engine.backend.precision}",
        "machine": machine(),
        "other_work": others.cores(),
    }
    if arguments.json:
        print(json.dumps({**about, "figures": [asdict(figure) for figure in figures]}, indent=1))
        return
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print("| streams | lanes | fps | propagated p50 | p99 | key p99 | memory |\n|" + " ---: |" * 7)
    for figure in figures:
        times = (figure.propagated, figure.propagated_worst, figure.key_worst)
        cells = [f"{figure.streams}", f"{figure.lanes}", f"{figure.fps:.1f}", *(f"{1000 * t:.0f} ms" for t in times)]
        cells.append(f"{figure.memory / 2**20:.0f} MB")
        print(f"| {' | '.join(cells)} |")


def draw(figures: Sequence[Figure], model: str, path: Path) -> None:
    """Draw the frames a second over the number of streams."""
    from matplotlib.figure import Figure as Picture

    picture = Picture((6, 4), layout="constrained")
    axes = picture.add_subplot(xlabel="streams", ylabel="frames a second, all streams", title=model, xscale="log")
    for lanes in sorted({figure.lanes for figure in figures}):
        found = [figure for figure in figures if figure.lanes == lanes]
        label = "one frame at a time" if lanes == 1 else f"{lanes} lanes"
        axes.plot([figure.streams for figure in found], [figure.fps for figure in found], marker="o", label=label)
    counts = sorted({figure.streams for figure in figures})
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.legend()
    picture.savefig(path, dpi=120)


def _figure(streams: int, lanes: int, rounds: Sequence[Round], before: int) -> Figure:
    """Return the medians of some rounds, and how much more memory there was than before all of them."""
    return Figure(
        streams,
        lanes,
        fps=statistics.median(found.fps for found in rounds),
        propagated=statistics.median(found.propagated for found in rounds),
        propagated_worst=statistics.median(found.propagated_worst for found in rounds),
        key_worst=statistics.median(found.key_worst for found in rounds),
        memory=min(found.memory for found in rounds) - before,  # later rounds keep what larger ones have freed
    )


if __name__ == "__main__":
    main()
