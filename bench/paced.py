"""Measures the latency of streams whose frames come at a fixed rate, as cameras send them, with overlapped key frames.

All streams start together, so that their key frames are due in the same turn. Within a turn each camera has its own
moment, unless `--together` is given. Their rate is a share of what the processor does with one stream, one lane and no
pause, which is measured first. These ways take turns in one process:

- `blocking`: one frame at a time on the whole processor, and all streams have their key frames in the same turn
- `spread`: the same, with different key phases, which the server gives streams in the mode `latest`
- `lanes`: frames of several streams at the same time
- `lanes-spread`: both
- `overlapped`: on lanes, and key frames are computed in slices between the frames after them
- `overlapped-latest`: the same, but a stream goes on from a key frame as soon as it is ready, as in the mode `latest`

The figures are medians over the rounds. Latency is the time from when a frame is due to its result. The first second
isn't counted: all streams begin with a key frame that blocks.

Example: python -m bench.paced --model models/street --streams 1 --load 0.7 --json
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from bench.imports import machine
from bench.streams import Frames, demo_frames, measure, warm_engine
from keywarp.commands.other_work import OtherWork
from keywarp.engines import SLICES, Engine, Executor, FixedInterval, FrameResult, KeyReason, StreamSession


@dataclass(frozen=True)
class Way:
    """One way to run the streams."""

    name: str
    lanes: int
    overlap: int = 0  # frames
    spread: bool = False  # whether key phases differ
    eager: bool = False  # whether a stream goes on from a key frame as soon as it is ready


@dataclass(frozen=True)
class Figure:
    """What one way gave. Times are latencies in seconds."""

    way: str
    p50: float
    p99: float
    longest: float
    key: float | None  # the median time of key frames on the processor, without the first ones; None if none was used
    age: float  # frames, the mean age of key frames
    other_work: float  # cores that other programs took


FIRST = 1.0  # seconds that aren't counted


def run(
    engine: Engine, way: Way, streams: int, fps: float, frames: Frames, seconds: float, interval: int, *, together: bool
) -> Figure:
    """Run streams of `fps` frames a second each, which start together."""
    executor = Executor(way.lanes)
    sessions = [
        StreamSession(
            engine,
            FixedInterval(interval, number % interval if way.spread else 0),
            overlap=way.overlap,
            eager=way.eager,
        )
        for number in range(streams)
    ]
    latencies: list[float] = []
    keys: list[float] = []
    ages: list[int] = []

    def note(due: float, future: Future[FrameResult]) -> None:
        result = future.result()
        if due < started + FIRST:
            return
        latencies.append(time.perf_counter() - due)
        ages.append(result.key_age)
        if result.reason is KeyReason.INTERVAL:
            keys.append(result.inference + result.postprocess)
        elif result.overlapped:
            keys.append(result.overlapped)

    others, started = OtherWork(), time.perf_counter()
    for number in range(int(seconds * fps)):
        for place, session in enumerate(sessions):
            due = started + (number + (0 if together else place / streams)) / fps
            time.sleep(max(0.0, due - time.perf_counter()))
            executor.submit(session, frames[number % len(frames)]).add_done_callback(partial(note, due))
    executor.close()
    p50, p99 = np.percentile(latencies, [50, 99])
    key = statistics.median(keys) if keys else None
    return Figure(way.name, float(p50), float(p99), max(latencies), key, statistics.mean(ages), others.cores() or 0.0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/street"), help="the bundle (default: street)")
    parser.add_argument("--precision", default="auto", help="the precision (default: auto)")
    parser.add_argument("--streams", type=int, default=1, help="the number of streams (default: 1)")
    parser.add_argument("--load", type=float, default=0.7, help="the load, as a share of one lane's (default: 0.7)")
    parser.add_argument("--lanes", type=int, default=2, help="the number of lanes (default: 2)")
    parser.add_argument("--overlap", type=int, default=5, help="frames by which key frames overlap (default: 5)")
    parser.add_argument("--together", action="store_true", help="all cameras send their frames at the same moment")
    parser.add_argument("--interval", type=int, default=10, help="the key interval (default: 10)")
    parser.add_argument("--seconds", type=float, default=6, help="seconds of one measurement (default: 6)")
    parser.add_argument("--ways", help="ways to measure, with commas between (default: all)")
    parser.add_argument("--size", help="WIDTHxHEIGHT to which frames are resized first (default: as they are)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each way (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    lanes, interval, streams = arguments.lanes, arguments.interval, arguments.streams
    frames = demo_frames(6 * interval)
    if arguments.size:
        width, height = map(int, arguments.size.split("x"))
        frames = [np.asarray(cv2.resize(frame, (width, height)), np.uint8) for frame in frames]
    engine = warm_engine(arguments.model, lanes, frames, arguments.precision)
    sliced = warm_engine(arguments.model, lanes, frames, arguments.precision, SLICES)
    full = statistics.median(measure(engine, 1, 1, frames, interval).fps for _ in range(3))
    fps = arguments.load * full / streams
    ways = [
        Way("blocking", 1),
        Way("spread", 1, spread=True),
        Way("lanes", lanes),
        Way("lanes-spread", lanes, spread=True),
        Way("overlapped", lanes, arguments.overlap),
        Way("overlapped-latest", lanes, arguments.overlap, spread=True, eager=True),
    ]
    if arguments.ways:
        ways = [way for way in ways if way.name in arguments.ways.split(",")]
    rounds: dict[str, list[Figure]] = {way.name: [] for way in ways}
    for number in range(arguments.rounds):
        for way in ways:
            print(f"round {number + 1}: {way.name}", file=sys.stderr, flush=True)
            used = sliced if way.overlap else engine
            figure = run(used, way, streams, fps, frames, arguments.seconds, interval, together=arguments.together)
            rounds[way.name].append(figure)
    figures = [_median(found) for found in rounds.values()]
    height, width = frames[0].shape[:2]
    about = {
        "model": engine.bundle.name,
        "motion": engine.motion,
        "interval": interval,
        "streams": streams,
        "frames": "together" if arguments.together else "apart",
        "load": arguments.load,
        "fps": round(fps, 2),
        "overlap": arguments.overlap,
        "lanes": lanes,
        "size": f"{width}x{height}",
        "runtime": f"{engine.backend.name} {engine.backend.precision}",
        "machine": machine(),
    }
    if arguments.json:
        print(json.dumps({**about, "figures": [asdict(figure) for figure in figures]}, indent=1))
        return
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print("| way | p50 | p99 | p99 / p50 | longest | a key frame | key age | other work |\n| --- |" + " ---: |" * 7)
    for figure in figures:
        times = [f"{1000 * value:.1f} ms" for value in (figure.p50, figure.p99)]
        longest, key = f"{1000 * figure.longest:.0f} ms", f"{1000 * figure.key:.1f} ms" if figure.key else "-"
        cells = [
            figure.way,
            *times,
            f"{figure.p99 / figure.p50:.1f}",
            longest,
            key,
            f"{figure.age:.1f}",
            f"{figure.other_work:.2f}",
        ]
        print(f"| {' | '.join(cells)} |")


def _median(rounds: Sequence[Figure]) -> Figure:
    """Return the medians of some rounds."""
    keys = [found.key for found in rounds if found.key is not None]
    return Figure(
        rounds[0].way,
        p50=statistics.median(found.p50 for found in rounds),
        p99=statistics.median(found.p99 for found in rounds),
        longest=statistics.median(found.longest for found in rounds),
        key=statistics.median(keys) if keys else None,
        age=statistics.median(found.age for found in rounds),
        other_work=statistics.median(found.other_work for found in rounds),
    )


if __name__ == "__main__":
    main()
