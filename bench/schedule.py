"""Measures what an adaptive schedule and each of its parts cost per frame, on one core.

The frames are textured noise that pans by a hundredth of its width per frame. A cut costs a second search.

Example: python bench/schedule.py --json
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.engines import AdaptiveInterval, FixedInterval
from keywarp.engines.change import Thumbnail, change_after_motion, change_without_motion

SIZES = ((640, 272), (1280, 720), (1920, 1080), (3840, 2160))
FRAMES = 30


@dataclass(frozen=True)
class Figure:
    """The cost of the schedule on frames of one size, medians in seconds per frame."""

    width: int
    height: int
    thumbnail: float  # make a thumbnail
    still: float  # compare with the previous frame
    moved: float  # search for motion from the key frame and compare
    adaptive: float  # whole decision on a propagated frame
    fixed: float  # whole decision of a fixed interval


def measure(width: int, height: int, repeats: int) -> Figure:
    """Time everything on frames of one size."""
    frames = _pan(width, height)
    thumbnails = [Thumbnail.of(frame) for frame in frames]
    adaptive = AdaptiveInterval(threshold=1.0, cut=1.0, maximum=1_000_000).for_stream()
    fixed = FixedInterval(1_000_000).for_stream()
    for stream in (adaptive, fixed):
        stream.decide(frames[0])

    def times(step: Callable[[int], object]) -> list[float]:
        seconds = []
        for repeat in range(repeats):
            started = time.perf_counter()
            step(1 + repeat % (FRAMES - 1))
            seconds.append(time.perf_counter() - started)
        return seconds

    return Figure(
        width,
        height,
        thumbnail=statistics.median(times(lambda i: Thumbnail.of(frames[i]))),
        still=statistics.median(times(lambda i: change_without_motion(thumbnails[i], thumbnails[i - 1]))),
        moved=statistics.median(times(lambda i: change_after_motion(thumbnails[i], thumbnails[0]))),
        adaptive=statistics.median(times(lambda i: adaptive.decide(frames[i]))),
        fixed=statistics.median(times(lambda i: fixed.decide(frames[i]))),
    )


def main() -> None:
    """Print the table or the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--repeats", type=int, default=600, help="timed frames of each part (default: 600)")
    arguments = parser.parse_args()

    cv2.setNumThreads(1)
    figures = [measure(width, height, arguments.repeats) for width, height in SIZES]
    if arguments.json:
        conditions = {"machine": _machine(), "threads": 1, "repeats": arguments.repeats}
        print(json.dumps({**conditions, "sizes": [asdict(figure) for figure in figures]}))
        return
    print(f"{_machine()}, 1 thread, median of {arguments.repeats} frames, ms per frame")
    columns = ("thumbnail", "still", "moved", "adaptive", "fixed")
    print(f"{'frame':<10}" + "".join(f"{column:>11}" for column in columns))
    for figure in figures:
        values = asdict(figure)
        print(f"{figure.width}x{figure.height:<6}" + "".join(f"{values[c] * 1000:>11.3f}" for c in columns))


def _pan(width: int, height: int) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    step = width // 100
    wide = random.integers(0, 256, (24, 64, 3), np.uint8)
    scene = cv2.resize(wide, (width + FRAMES * step, height), interpolation=cv2.INTER_CUBIC)
    return [np.array(scene[:, i * step : i * step + width], np.uint8) for i in range(FRAMES)]


def _machine() -> str:
    """Return the processor's name, if the system knows it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
