"""Measures what an adaptive schedule and each of its parts cost per frame, on one core.

The frames are textured noise that pans by a hundredth of its width per frame. A cut costs a second search.

With `--starts`, it measures instead how soon streams reach their target, the mean interval: how many key frames they
have after n = 25, 50 and 100 frames, beside n / target, and the same with a gain that is constant from the start. A
stream begins at every 25th frame of each video.

Example: python bench/schedule.py --json
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.client import open_source
from keywarp.engines import AdaptiveInterval, FixedInterval
from keywarp.engines import adaptive as adaptive_rule
from keywarp.engines.change import Thumbnail, change_after_motion, change_without_motion

SIZES = ((640, 272), (1280, 720), (1920, 1080), (3840, 2160))
FRAMES = 30
TARGETS = (3, 5, 10)  # mean intervals, frames
LENGTHS = (25, 50, 100)  # frames from a stream's start
STEP = 25  # frames between the starts of two streams


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


@dataclass(frozen=True)
class Start:
    """How many key frames streams have after their first n frames."""

    video: str
    target: int  # frames
    gain: str  # constant, or falling as in the product
    streams: int
    frames: int  # n
    wanted: float  # n / target
    mean: float
    deviation: float  # root mean square of the difference to n / target


def measure_starts(video: str) -> list[Start]:
    """Run streams from many frames of a video on."""
    with open_source(video) as source:
        frames = [frame.image for frame in source]
    found = []
    for target in TARGETS:
        for gain, at_start in (("constant", adaptive_rule.GAIN), ("falling", adaptive_rule.START_GAIN)):
            with patch.object(adaptive_rule, "START_GAIN", at_start):
                firsts = range(0, len(frames) - max(LENGTHS) + 1, STEP)
                keys = [_keys(frames[first : first + max(LENGTHS)], target) for first in firsts]
            for length in LENGTHS:
                counts = np.array([decided[:length].sum() for decided in keys])
                wanted = length / target
                deviation = float(np.sqrt(np.square(counts - wanted).mean()))
                found.append(
                    Start(Path(video).name, target, gain, len(keys), length, wanted, float(counts.mean()), deviation)
                )
    return found


def _keys(frames: Sequence[NDArray[np.uint8]], target: int) -> NDArray[np.bool_]:
    stream = AdaptiveInterval(target=target).for_stream()
    return np.array([stream.decide(frame).is_key for frame in frames])


def main() -> None:
    """Print the table or the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--repeats", type=int, default=600, help="timed frames of each part (default: 600)")
    parser.add_argument("--starts", nargs="+", metavar="VIDEO", help="measure how soon streams reach their target")
    arguments = parser.parse_args()

    cv2.setNumThreads(1)
    if arguments.starts:
        starts = [start for video in arguments.starts for start in measure_starts(video)]
        if arguments.json:
            print(json.dumps([asdict(start) for start in starts]))
            return
        print("key frames after n frames: mean, and root mean square difference to n / target")
        for start in starts:
            print(
                f"{start.video:<12} target {start.target:<3} gain {start.gain:<9} {start.streams:>3} streams, after "
                f"{start.frames:>3}: {start.mean:5.1f} of {start.wanted:5.1f}, +-{start.deviation:.1f}"
            )
        return
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
