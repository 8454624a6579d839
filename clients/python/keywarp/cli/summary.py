"""The figures of one run."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from keywarp.protocol.addresses import hide_secrets


@dataclass(frozen=True, slots=True)
class Latency:
    """How long frames of one kind waited for their results, in seconds, to 0.1 %."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a run.

    `seconds` measures the service, not the recording. So time in which only drawing and writing took place, with no
    frame under way, isn't counted.

    Attributes:
        title: The name of the run.
        frames: The number of results.
        key_frames: The number of results on key frames.
        seconds: Time during which a result was awaited (which includes reading, compressing and sending frames) or
            frames were under way.
        key: The latency of key frames; None if there were none, or the latency is unknown.
        propagated: The latency of propagated frames; None as for `key`.
        reconnects: The number of times that the connection broke and the stream continued.
        missing: The number of frames that are damaged or missing, or could not be processed; the least number that it
            can be, if the source was cut off and doesn't say how many it had.
        damage: What was left out, and why; None if nothing was.
        notes: What one should know about the source, such as that another video was left out.
    """

    title: str
    frames: int
    key_frames: int
    seconds: float
    key: Latency | None
    propagated: Latency | None
    reconnects: int = 0
    missing: int = 0
    damage: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, object]:
        """Return the figures for JSON, with times in seconds."""
        return asdict(self) | {"fps": self.fps}


def summary_table(summaries: Iterable[Summary]) -> Table:
    """Return a table of runs. Latencies are medians and 99th percentiles in milliseconds."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("latency in ms")
    for name in ("frames", "key\nframes", "fps", "key\np50 / p99", "propagated\np50 / p99"):
        table.add_column(name, justify="right", no_wrap=True)
    for summary in summaries:
        table.add_row(
            summary.title,
            str(summary.frames),
            str(summary.key_frames),
            f"{summary.fps:.1f}",
            _milliseconds(summary.key),
            _milliseconds(summary.propagated),
        )
    return table


def print_summary(summary: Summary, *, as_json: bool) -> None:
    """Print the figures of one run to stdout, as a table or as a line of JSON."""
    if as_json:
        print(json.dumps(summary.as_dict()))
    else:
        Console().print(summary_table([summary]))


def print_notes(name: str, notes: Iterable[str]) -> None:
    """Print to stderr what one should know about a source."""
    for note in notes:
        print(f"keywarp: {hide_secrets(name)}: {note}", file=sys.stderr)


def _milliseconds(latency: Latency | None) -> str:
    return "-" if latency is None else f"{latency.p50 * 1000:.1f} / {latency.p99 * 1000:.1f}"
