"""Tests whether a server keeps its speed and gives back what its clients used, for minutes or hours.

There are two parts, each with a server process of its own:

- *steady*: some streams keep the server busy, while one more is opened and dropped rudely each second. The server must
  not hold more at the end than at the beginning, and its last minute must be as fast as its first.
- *rude*: streams are opened and dropped at once: within the request, a message or a video, before and after results.
  When all are gone, the server must not hold more than after the first tenth of them.

The exit status is 1 if a part fails.

Example: python -m bench.soak --minutes 10 --rude 1000 --json soak.json
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from bench.soak.rude import Payloads, Rude
from bench.soak.samples import COUNTS, Probe, Sample, as_dict, growth, kept
from bench.soak.steady import keep_busy, speed
from keywarp.client import open_source
from keywarp.client.images import encode_jpeg
from keywarp.commands.engine_bench.machine import describe_machine
from keywarp.commands.load_generator import make_payloads
from keywarp.commands.local_server import local_server
from keywarp.commands.other_work import OtherWork
from keywarp.commands.sample_video import sample_video
from keywarp.server.streams.registry import RELEASE_PERIOD

MOST_MEMORY: Final = 0.02  # by which memory may grow, as a share
MOST_CHANGE: Final = 0.03  # by which the last minute may be slower, as a share
SHORTEST: Final = 0.05  # minutes; fewer samples say nothing
FEWEST: Final = 15  # streams between two samples, each of which takes seconds
MEDIAN_OF: Final = 5  # samples
PACKETS: Final = 10
UNLIMITED: Final = ("--max-wait", "0", "--max-streams", "1000")  # so that no stream is refused


@dataclass(frozen=True)
class Part:
    """What one part of the test found."""

    name: str
    faults: tuple[str, ...]
    samples: tuple[Sample, ...]
    figures: dict[str, Any]


def main() -> None:
    """Test and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0, help="how long the steady part takes (default: 0, none)")
    parser.add_argument("--rude", type=int, default=0, help="streams of the rude part (default: 0, none)")
    parser.add_argument(
        "--models", type=Path, default=Path("models/street-detect"), help="a bundle or a folder of them"
    )
    parser.add_argument("--streams", type=int, default=4, help="busy streams of the steady part (default: 4)")
    parser.add_argument("--at-a-time", type=int, default=8, help="rude streams at a time (default: 8)")
    parser.add_argument("--size", default="640x360", help="WIDTHxHEIGHT of the images (default: 640x360)")
    parser.add_argument(
        "--settle",
        type=float,
        default=RELEASE_PERIOD + 1,
        help="seconds before a sample in which the server gives memory back (default: %(default)g)",
    )
    parser.add_argument("--json", type=Path, help="write all samples to a file")
    arguments = parser.parse_args()
    if not arguments.minutes and not arguments.rude:
        parser.error("nothing to do: give --minutes, --rude or both")
    if 0 < arguments.minutes < SHORTEST:
        parser.error(f"--minutes must be at least {SHORTEST:g}")
    payloads = _payloads(arguments.size)
    parts = []
    if arguments.minutes:
        parts.append(_steady(arguments, payloads))
    if arguments.rude:
        parts.append(_rude(arguments, payloads))
    for part in parts:
        _print(part)
    if arguments.json:
        document = {"machine": asdict(describe_machine()), "parts": [_as_dict(part) for part in parts]}
        arguments.json.write_text(json.dumps(document, indent=1))
    sys.exit(any(part.faults for part in parts))


def _payloads(size: str) -> Payloads:
    width, height = map(int, size.split("x"))
    with open_source(str(sample_video())) as source:
        frames = [frame.image for frame, _ in zip(source, range(PACKETS), strict=False)]
    images = [encode_jpeg(np.asarray(cv2.resize(frame, (width, height)), np.uint8), 90) for frame in frames]
    return Payloads(images, make_payloads(sample_video(), "h264", PACKETS))


def _steady(arguments: argparse.Namespace, payloads: Payloads) -> Part:
    seconds, every = 60 * arguments.minutes, min(5.0, 60 * arguments.minutes / 12)
    others = OtherWork()
    with local_server(arguments.models, *UNLIMITED) as url:
        probe, rude = Probe(url, settle=arguments.settle), Rude(url, payloads)
        rude.open(20)
        before = probe.calm()
        samples = keep_busy(url, probe, rude, payloads.images, streams=arguments.streams, seconds=seconds, every=every)
        after = probe.calm()
        probe.close()
    settled = samples[len(samples) // 5 :]  # caches and pools have been filled by then
    faults = kept(before, after)
    grown, surely = growth(settled, "memory")
    if surely > MOST_MEMORY * settled[0].memory:
        faults.append(f"memory grew by {grown / 2**20:.1f} MB, at least {surely / 2**20:.1f}")
    for name in COUNTS:
        more, least = growth(settled, name)
        if least >= 1:
            faults.append(f"{name} grew by {more:.0f}, at least {least:.0f}")
    found = speed(samples)
    if found.change < -MOST_CHANGE:
        faults.append(f"the end was {-100 * found.change:.1f} % slower than the beginning")
    figures = {
        "frames": samples[-1].frames - samples[0].frames,
        "results a second, first minute": found.first,
        "results a second, last minute": found.last,
        "change": found.change,
        "results in a second of the server's processor time, first minute": found.first_of_processor,
        "results in a second of the server's processor time, last minute": found.last_of_processor,
        "growth of memory, bytes": grown,
        "its lower bound, bytes": surely,
        "dropped rudely": rude.done.total(),
        "refused": dict(rude.refused),
        "other work, cores": others.cores(),
    }
    return Part("steady", tuple(faults), (before, *samples, after), figures)


def _rude(arguments: argparse.Namespace, payloads: Payloads) -> Part:
    step = max(FEWEST, arguments.rude // 20)
    with local_server(arguments.models, *UNLIMITED) as url:
        probe, rude = Probe(url, settle=arguments.settle), Rude(url, payloads, at_a_time=arguments.at_a_time)
        samples, opened, started = [probe.calm()], [0], time.monotonic()
        while opened[-1] < arguments.rude:
            count = min(step, arguments.rude - opened[-1])
            rude.open(count)
            opened.append(opened[-1] + count)
            samples.append(probe.calm())
            print(f"{opened[-1]} streams, {samples[-1].memory / 2**20:.1f} MB", file=sys.stderr, flush=True)
        seconds = time.monotonic() - started
        probe.close()
    tenth = next(number for number, count in enumerate(opened) if count >= arguments.rude / 10)
    least = min(MEDIAN_OF, len(samples) - tenth)  # single samples differ by a few per cent
    before = statistics.median(sample.memory for sample in samples[tenth : tenth + least])
    after = statistics.median(sample.memory for sample in samples[-least:])
    grown = after / before - 1
    faults = kept(_most(samples[tenth : tenth + least]), samples[-1])
    if grown > MOST_MEMORY:
        faults.append(f"memory grew by {100 * grown:.1f} % after the first {opened[tenth]} streams")
    if rude.refused:
        faults.append(f"{rude.refused.total()} clients were refused: {rude.refused.most_common(1)[0][0]}")
    figures = {
        "streams": opened[-1],
        "clients": dict(rude.done),
        "refused": dict(rude.refused),
        "seconds": seconds,
        "memory at first, bytes": samples[0].memory,
        f"memory from {opened[tenth]} streams on, median of {least}, bytes": before,
        f"memory up to {opened[-1]} streams, median of {least}, bytes": after,
        "growth": grown,
    }
    return Part("rude", tuple(faults), tuple(samples), figures)


def _most(samples: Sequence[Sample]) -> Sample:
    """Return the largest counts of some samples: threads of a pool come and go."""
    return replace(samples[0], **{name: max(getattr(sample, name) for sample in samples) for name in COUNTS})


def _print(part: Part) -> None:
    table = Table(title=f"soak: {part.name}", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("seconds", "memory, MB", *COUNTS, "frames"):
        table.add_column(name, justify="right")
    for sample in _some(part.samples):
        counts = [f"{getattr(sample, name)}" for name in (*COUNTS, "frames")]
        table.add_row(f"{sample.at - part.samples[0].at:.0f}", f"{sample.memory / 2**20:.1f}", *counts)
    console = Console()
    console.print(table)
    for name, value in part.figures.items():
        shown = (
            f"{value / 2**20:.1f} MB"
            if name.endswith(", bytes")
            else f"{value:.4g}"
            if isinstance(value, float)
            else value
        )
        console.print(f"{name.removesuffix(', bytes')}: {shown}", highlight=False)
    for fault in part.faults:
        console.print(f"FAILED: {fault}", highlight=False)
    if not part.faults:
        console.print("passed")


def _some(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Leave out samples of a long run, but not the first and the last ones."""
    step = max(1, len(samples) // 20)
    return [*samples[:-2:step], *samples[-2:]]


def _as_dict(part: Part) -> dict[str, Any]:
    samples = [as_dict(sample) for sample in part.samples]
    return {"name": part.name, "faults": part.faults, "figures": part.figures, "samples": samples}


if __name__ == "__main__":
    main()
