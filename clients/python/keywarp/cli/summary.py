"""The figures of one run."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from rich import box
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Latency:
    """How long frames of one kind waited for their results, in seconds, to 0.1 %."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run of frames took.

    Attributes:
        title: What was run.
        frames: Results.
        key_frames: Results on key frames.
        seconds: Time during which results were waited for (reading, compressing and sending frames is part of that) or
            frames were under way. Left out is only time that drawing and writing took with no frame under way: the
            figures are of the service, not of the recording, and overlapping the two gains nothing.
        key: Latency of key frames; None where there was none, or frames can't be told apart on the way.
        propagated: Latency of the frames between.
        reconnects: How often the connection broke and the stream went on.
    """

    title: str
    frames: int
    key_frames: int
    seconds: float
    key: Latency | None
    propagated: Latency | None
    reconnects: int = 0

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, object]:
        """Give the figures for JSON; times are in seconds."""
        return asdict(self) | {"fps": self.fps}


def summary_table(summaries: Iterable[Summary]) -> Table:
    """Set runs side by side; latencies are medians and 99th percentiles in milliseconds."""
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


def _milliseconds(latency: Latency | None) -> str:
    return "-" if latency is None else f"{latency.p50 * 1000:.1f} / {latency.p99 * 1000:.1f}"
