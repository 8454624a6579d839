"""Measures accuracy and speed of the hand-crafted motion sources on a real pair of frames with known flow.

The pair is Middlebury's Grove3 (`keywarp.datasets.middlebury`).

Example: python bench/motion.py --json
"""

import argparse
import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.datasets.middlebury import MiddleburyPair, grove3
from keywarp.engines.motion import DIS, OpticalFlow
from keywarp.experiments.siftflow import SIFTFlow

CACHE = Path(__file__).parents[1] / ".cache" / "keywarp" / "packages"


@dataclass(frozen=True)
class Figure:
    """The accuracy and speed of one source."""

    name: str
    error: float  # mean end-point error, pixels
    seconds: float | None  # median time, or None if nothing is computed


class NoMotion:
    """Zero flow, the baseline that an estimate has to beat."""

    name = "zero"

    def estimate(self, current: NDArray[np.uint8], key: NDArray[np.uint8]) -> NDArray[np.float32]:  # noqa: ARG002
        """Return a flow of zeros."""
        return np.zeros((*current.shape[:2], 2), np.float32)


def measure(pair: MiddleburyPair, sources: list[OpticalFlow], repeats: int) -> list[Figure]:
    """Measure errors, and median times of interleaved repeats after a warm-up that compiles."""
    errors = [pair.error(source.estimate(pair.current, pair.key)) for source in sources]
    seconds: list[list[float]] = [[] for _ in sources]
    for _ in range(repeats):
        for source, times in zip(sources, seconds, strict=True):
            started = time.perf_counter()
            source.estimate(pair.current, pair.key)
            times.append(time.perf_counter() - started)
    return [
        Figure(source.name, error, None if isinstance(source, NoMotion) else statistics.median(times))
        for source, error, times in zip(sources, errors, seconds, strict=True)
    ]


def main() -> None:
    """Print the table or the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each source (default: 3)")
    arguments = parser.parse_args()

    pair = grove3(CACHE)
    height, width = pair.flow.shape[:2]
    figures = measure(pair, [NoMotion(), DIS(), SIFTFlow(SIFTFlow.FAST), SIFTFlow(SIFTFlow.SLOW)], arguments.repeats)
    conditions = {
        "pair": "Middlebury Grove3",
        "width": width,
        "height": height,
        "machine": _machine(),
        "threads": {"dis": cv2.getNumThreads(), "sift": 1},
        "repeats": arguments.repeats,
    }
    if arguments.json:
        print(json.dumps({**conditions, "sources": [asdict(figure) for figure in figures]}))
        return
    print(
        f"Middlebury Grove3, {width}x{height}, {conditions['machine']}, {cv2.getNumThreads()} threads (SIFT-Flow: 1),"
    )
    print(f"median of {arguments.repeats} interleaved runs")
    print(f"{'source':<10} {'end-point error':>15} {'time':>10}")
    for figure in figures:
        seconds = "-" if figure.seconds is None else f"{figure.seconds:.3f} s"
        print(f"{figure.name:<10} {figure.error:>12.3f} px {seconds:>10}")


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
