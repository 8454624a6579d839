"""Measures what tracking and rules cost a frame, beside the engine.

Example: python bench/rules.py models/street-detect /usr/share/doc/opencv-doc/examples/data/vtest.avi --interval 5
"""

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import get_args

from keywarp.cli.errors import CommandError
from keywarp.client import SourceError
from keywarp.clips.opening import open_clip
from keywarp.engines import Engine, EngineError, FixedInterval, Precision, StreamSession, load_bundle
from keywarp.engines.tracks import Tracker
from keywarp.experiments.report import machine, table
from keywarp.protocol.events import Rules
from keywarp.server.events.watcher import Watcher

RULES = Rules.model_validate(
    {
        "zones": {"left": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]], "right": [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]},
        "lines": {"middle": [[0.5, 0], [0.5, 1]]},
        "rules": {
            "left": {"classes": ["person"], "zone": "left", "min_seconds": 5},
            "right": {"classes": ["person"], "zone": "right", "min_seconds": 5},
            "crowd": {"classes": ["person"], "min_count": 6},
            "entry": {"classes": ["person"], "line": "middle", "direction": "left"},
        },
    }
)


def main() -> None:
    """Print the table or the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder of a detector's bundle, with the class `person`")
    parser.add_argument("video", help="a video file")
    parser.add_argument("--interval", type=int, default=5, help="key interval, frames")
    parser.add_argument("--frames", type=int, default=300, help="the most frames")
    parser.add_argument(
        "--precision", default="auto", choices=get_args(Precision), help="of the engine (default: auto)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    costs: dict[str, list[float]] = {"engine": [], "tracking": [], "four rules": [], "four rules, with a snapshot": []}
    events = 0
    try:
        engine = Engine(load_bundle(arguments.bundle), precision=arguments.precision)
        session = StreamSession(engine, FixedInterval(arguments.interval))
        manifest = engine.bundle.manifest
        if manifest.detection is None:
            raise ValueError(f"{manifest.name} detects no objects: give a detector")
        tracker, watcher = Tracker(manifest.detection.threshold), Watcher("bench", RULES, manifest)
        for _, frame in zip(range(arguments.frames), open_clip(arguments.video).frames(), strict=False):
            times = [time.perf_counter()]
            found = session.process(frame.image, timestamp=frame.time)
            times.append(time.perf_counter())
            found = tracker.update(found, frame.time)
            times.append(time.perf_counter())
            reports = watcher.see(frame.image, found, frame.time, datetime.now(UTC))
            times.append(time.perf_counter())
            drawn = any(report.jpeg for report in reports)
            events += sum(report.jpeg is not None for report in reports)
            spent = [1000 * (end - start) for start, end in pairwise(times)]
            for name, one in zip(("engine", "tracking", [*costs][2 + drawn]), spent, strict=True):
                costs[name].append(one)
    except (CommandError, EngineError, SourceError, ValueError) as error:
        sys.exit(f"error: {error}")
    del costs["engine"][0]  # compiles
    figures = {name: mean(each) for name, each in costs.items() if each}
    if arguments.json:
        print(json.dumps({"machine": machine(), "events": events, "milliseconds": figures}))
        return
    print(f"{manifest.name}, {engine.backend.name} {engine.backend.precision}, {machine()}, {events} events\n")
    print(table(["", "ms a frame"], [[name, f"{one:.2f}"] for name, one in figures.items()]))


if __name__ == "__main__":
    main()
