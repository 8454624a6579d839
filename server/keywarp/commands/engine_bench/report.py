"""The result as tables, as JSON and as a chart."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table

from keywarp.commands.bar_charts import Bar, BarChart, draw_bar_chart
from keywarp.commands.charts import Color
from keywarp.commands.engine_bench.comparison import Result
from keywarp.commands.engine_bench.figures import FrameRow, KeywarpRow, Spread, speed_ups
from keywarp.commands.engine_bench.footage import LENGTH
from keywarp.commands.other_work import QUIET

GREY: Color = (150, 156, 164)
ORANGE: Color = (230, 159, 0)
COLORS: Sequence[Color] = ((0, 114, 178), (0, 158, 115), (204, 121, 167), (86, 180, 233))  # one for each motion
NAMES = {  # for people
    "flownet": "FlowNet",
    "flownet_inception": "FlowNet Inception",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "pytorch": "PyTorch",
    "ssdlite": "SSDLite",
    "lr-aspp": "LR-ASPP",
}


def as_json(result: Result) -> dict[str, Any]:
    """Return the result for JSON: times in milliseconds, memory in bytes, the rest as the names say."""
    return {
        "config": result.config,
        "size": list(result.size),
        "rounds": result.rounds,
        "interrupted": result.interrupted,
        "other_work": result.other_work,
        "threads": result.threads,
        "machine": asdict(result.machine),
        "operations": {motion: asdict(counted) for motion, counted in result.operations.items()},
        "peaks": result.peaks,
        "speedups": speed_ups(result.keywarp),
        "per_frame": [asdict(row) for row in result.frames if row.kind != "part"],
        "keywarp": [_keywarp_json(row) for row in result.keywarp],
        "parts": [asdict(row) for row in result.frames if row.kind == "part"],
        "left_out": result.left_out,
        "notes": result.notes,
    }


def print_tables(result: Result, console: Console) -> None:
    """Print the result."""
    rows = [row for row in result.frames if row.kind != "part"]
    if rows:
        _print_frames(rows, console)
    if result.keywarp:
        _print_keywarp(result.keywarp, console)
    if parts := [row for row in result.frames if row.kind == "part"]:
        _print_parts(parts, console)
    _print_profiles(result.keywarp, console)
    for line in _remarks(result):
        console.print(line, style="dim", highlight=False, soft_wrap=True)
    if result.other_work is not None and result.other_work > QUIET:
        console.print(
            f"Other programs took {result.other_work:.1f} cores meanwhile: measure again on a quiet machine.",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
    for name, reason in result.left_out.items():
        console.print(f"{name} is left out: {reason}", style="yellow", highlight=False, soft_wrap=True)


def draw_chart(result: Result) -> Image.Image:
    """Draw what a frame takes: a bar for each contestant, those of Keywarp in their fastest precision."""
    bars: list[Bar] = []
    for kind, color in (("per frame", GREY), ("nano", ORANGE)):
        rows = [row for row in result.frames if row.kind == kind]
        for number, row in enumerate(rows):
            text = _bar_text(row.ms.median, row.speed_up)
            bars.append(Bar(f"{_readable(row.name)}, every frame", row.ms.median, text, color, begins=not number))
    motions = dict.fromkeys(row.motion for row in result.keywarp)
    for place, motion in enumerate(motions):
        found = [row for row in result.keywarp if row.motion == motion]
        best = min(found, key=lambda row: row.intervals[LENGTH].ms)
        for number, (length, figures) in enumerate(best.intervals.items()):
            name = f"Keywarp, {_readable(motion)} {best.precision}, interval {length}"
            text = _bar_text(figures.ms, figures.speed_up)
            bars.append(Bar(name, figures.ms, text, COLORS[place % len(COLORS)], begins=not number))
    height, width = result.size
    cores = f"{result.machine.cores} cores of {result.machine.processor}"
    return draw_bar_chart(
        BarChart(
            title=f"What a frame takes: {result.config}, {height}x{width}",
            subtitle=f"{cores}; medians of {_rounds(result)} in turns; times as fast as ONNX Runtime in fp32",
            x_title="ms a frame",
            note=f"keywarp bench engine --config {result.config}   |   interval {LENGTH} is of whole windows, the "
            "others computed from the medians of key and propagated frames",
            bars=bars,
        )
    )


def _keywarp_json(row: KeywarpRow) -> dict[str, Any]:
    found = asdict(row)
    found["intervals"] = {str(length): figures for length, figures in found["intervals"].items()}
    return found


def _print_frames(rows: Sequence[FrameRow], console: Console) -> None:
    table = _table("On every frame", "ms", "p10", "p90", "fps", "x ORT", "of peak", "MB")
    for row in rows:
        others = f"{row.fps:.1f}", _times(row.speed_up), _percent(row.peak_share), _megabytes(row.memory)
        table.add_row(row.name, *_spread(row.ms), *others)
    console.print(table)


def _print_keywarp(rows: Sequence[KeywarpRow], console: Console) -> None:
    spread = "p10", "p90"
    table = _table("Keywarp's frames", "key ms", *spread, "propagated ms", *spread, "host", "key of peak", "MB")
    for row in rows:
        others = f"{row.host.median:.1f}", _percent(row.key_peak_share), _megabytes(row.memory)
        table.add_row(row.name, *_spread(row.key), *_spread(row.propagated), *others)
    console.print(table)
    measured = "at 10: ms", *spread, "fps", "x ORT", "Eq. 7", "reached"
    table = _table("Keywarp at key intervals", "at 5: ms", "x ORT", *measured, "at 20: ms", "x ORT")
    for row in rows:
        cells: list[str] = []
        for figures in row.intervals.values():
            cells.append(f"{figures.ms:.1f}")
            if figures.p10 is not None and figures.p90 is not None:
                cells += [f"{figures.p10:.1f}", f"{figures.p90:.1f}", f"{figures.fps:.1f}"]
            cells.append(_times(figures.speed_up))
            if figures.measured:
                cells += [f"{figures.predicted:.2f}", _percent(figures.reached)]
        table.add_row(row.name, *cells)
    console.print(table)


def _print_profiles(rows: Sequence[KeywarpRow], console: Console) -> None:
    columns = "propagated ms", "flow network", "warp", "head", "host", "rest", "at the peak"
    table = _table("Where a propagated frame's time goes", *columns)
    for row in rows:
        if (p := row.profile) is not None:
            cells = [f"{value:.1f}" for value in (row.propagated.median, p.flow, p.warp, p.head, p.host, p.rest)]
            table.add_row(row.name, *cells, "" if p.at_peak is None else f"{p.at_peak:.1f}")
    if table.row_count:
        console.print(table)


def _print_parts(rows: Sequence[FrameRow], console: Console) -> None:
    table = _table("Keywarp's graphs by themselves", "ms", "p10", "p90", "of peak", "MB")
    for row in rows:
        table.add_row(row.name, *_spread(row.ms), _percent(row.peak_share), _megabytes(row.memory))
    console.print(table)


def _remarks(result: Result) -> list[str]:
    height, width = result.size
    peaks = ", ".join(f"{precision} {peak / 1e9:.0f}" for precision, peak in result.peaks.items())
    rounds = f"medians of {_rounds(result)} in turns, in one process"
    return [
        f"{result.config}, {height}x{width}, one stream, batch 1; {rounds}; {result.machine}.",
        *(["Interrupted: these are the figures up to then."] if result.interrupted else []),
        f"Interval {LENGTH} is measured in whole windows; the others are computed from the medians of key and "
        "propagated frames. Keywarp's times include the work on the host after the networks, the others' don't.",
        "Eq. 7 predicts the speed-up over every frame a key frame from the operations of flow and feature network "
        "(Eq. 6); the share of it that is reached is against Keywarp's own key frames.",
        *([f"Measured peaks, billion operations a second: {peaks}."] if peaks else []),
        *result.notes,
    ]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _spread(spread: Spread) -> tuple[str, str, str]:
    return f"{spread.median:.1f}", f"{spread.p10:.1f}", f"{spread.p90:.1f}"


def _readable(name: str) -> str:
    first, _, rest = name.partition(" ")
    return f"{NAMES.get(first, first)} {rest}".strip()


def _rounds(result: Result) -> str:
    return f"{result.rounds} round{'s' if result.rounds != 1 else ''}"


def _bar_text(ms: float, speed_up: float | None) -> str:
    time = f"{ms:.0f} ms" if ms >= 20 else f"{ms:.1f} ms"
    return time if speed_up is None else f"{time}, {speed_up:.1f}x"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _megabytes(value: int | None) -> str:
    return "" if value is None else f"{value / 1e6:.0f}"
