"""Measures how much cheaper propagation makes a frame, for bundles and input sizes: cuts of one network, say.

Key and propagated frames take turns, and what counts is processor time, which other programs disturb less than the
clock. The factor is what a key frame costs, divided by the mean over a key interval.

Example: python -m bench.sizes models/street-detect --short-side 512 640 768 --interval 10
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from keywarp.clips.opening import open_clip
from keywarp.commands.sample_video import sample_video
from keywarp.engines import Bundle, EngineError, Precision, load_bundle
from keywarp.engines.comparison import Clip, Options
from keywarp.engines.comparison.costs import ROUNDS, measure_costs
from keywarp.engines.preparation import input_size
from keywarp.experiments.labelled import with_short_side
from keywarp.experiments.report import machine, table
from keywarp.training.console import ConsoleReporter


@dataclass(frozen=True)
class Figure:
    """What frames of one bundle cost at one input size."""

    bundle: str
    height: int  # of the networks' input, pixels
    width: int
    key: float  # processor seconds
    propagated: float  # processor seconds
    factor: float  # by which frames are cheaper


def measure(
    bundle: Bundle,
    short_side: int | None,
    clip: Clip,
    motion: str,
    interval: int,
    precision: Precision,
    reporter: ConsoleReporter,
) -> Figure:
    """Measure one bundle at one input size, on one core.

    Args:
        bundle: The bundle.
        short_side: The shorter side of the networks' input in pixels, or None for the bundle's own.
        clip: The video.
        motion: The motion source.
        interval: The key interval in frames.
        precision: The precision of the engine.
        reporter: Shows how far it is.

    Raises:
        EngineError: If the engine fails.
        ValueError: If the bundle's networks have one input size only.
    """
    sized = with_short_side(bundle, short_side)
    options = Options(motions=(motion,), intervals=(interval,), threads=1, precision=precision)
    image = next(clip.frames()).image
    height, width = input_size(image.shape[0], image.shape[1], sized.manifest.image)
    reporter.stage(f"{bundle.path.name}, {width}x{height}", ROUNDS)
    cost = measure_costs(sized, [clip], options, lambda _, done, __: reporter.step(done))[0]
    key, propagated = cost.key_processor, cost.propagated_processor
    factor = interval * key / (key + (interval - 1) * propagated)
    return Figure(bundle.path.name, height, width, key, propagated, factor)


def main() -> None:
    """Print the table or the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+", help="folders of bundles")
    parser.add_argument("--short-side", nargs="+", type=int, help="of the input, pixels (default: the bundle's own)")
    parser.add_argument("--motion", help="motion source (default: the bundle's own)")
    parser.add_argument("--interval", type=int, default=10, help="key interval, frames (default: 10)")
    parser.add_argument(
        "--precision", default="auto", choices=get_args(Precision), help="of the engine (default: auto)"
    )
    parser.add_argument("--video", type=Path, help="the video (default: the demo's)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()

    try:
        clip = open_clip(str(arguments.video or sample_video()), (0, None))
        bundles = [load_bundle(path) for path in arguments.bundles]
        with ConsoleReporter() as reporter:
            figures = [
                measure(
                    b,
                    side,
                    clip,
                    arguments.motion or b.manifest.motion,
                    arguments.interval,
                    arguments.precision,
                    reporter,
                )
                for b in bundles
                for side in arguments.short_side or [None]
            ]
    except (EngineError, ValueError) as error:
        sys.exit(f"error: {error}")
    if arguments.json:
        print(json.dumps({"machine": machine(), "figures": [asdict(one) for one in figures]}))
        return
    print(f"{clip.name}, one of {machine()}: times cheaper (ms of a key and of a propagated frame)\n")
    print(_table(figures, arguments.interval))


def _table(figures: Sequence[Figure], interval: int) -> str:
    sizes = list(dict.fromkeys(f"{one.width}x{one.height}" for one in figures))
    rows: dict[str, dict[str, str]] = {}
    for one in figures:
        cell = f"{one.factor:.1f} ({1000 * one.key:.1f}, {1000 * one.propagated:.1f})"
        rows.setdefault(one.bundle, {})[f"{one.width}x{one.height}"] = cell
    return table(
        [f"at interval {interval}", *sizes],
        [[name, *(cells.get(size, "") for size in sizes)] for name, cells in rows.items()],
    )


if __name__ == "__main__":
    main()
