"""The tables and files of a comparison."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from keywarp.cli.files import write_errors
from keywarp.commands.comparison_pictures import agreement_charts, worst_sheet
from keywarp.engines import Bundle
from keywarp.engines.comparison import Clip, Comparison, Options, Recommended, replay, worst_passages

WORST_ROWS = 6  # of the picture of a source's worst frames


def as_json(comparison: Comparison) -> str:
    """Return the figures as JSON. What couldn't be measured is null."""
    return json.dumps(_finite(comparison.as_dict()), indent=2)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_tables(comparison: Comparison, console: Console) -> None:
    """Print what people want to know first."""
    for rows, title in ((_source_rows(comparison), None), (_interval_rows(comparison), None)):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title=title)
        for number, name in enumerate(rows[0]):
            table.add_column(name, justify="right" if number else "left", no_wrap=True)
        for row in rows[1:]:
            table.add_row(*row)
        console.print(table)
    for line in _remarks(comparison):
        console.print(line, highlight=False)


def write_report(bundle: Bundle, clips: Sequence[Clip], options: Options, comparison: Comparison, out: Path) -> None:
    """Write report.json, report.md and the pictures.

    Args:
        bundle: The bundle.
        clips: The clips.
        options: What was compared.
        comparison: The figures.
        out: The folder, which exists.

    Raises:
        CommandError: If a file can't be written.
        EngineError: If an engine fails.
    """
    with write_errors(out):
        (out / "report.json").write_text(as_json(comparison) + "\n", encoding="utf-8")
        agreement_charts(comparison).save(out / "agreement.png")
    picks = {name: worst_passages(comparison, name, WORST_ROWS) for name in comparison.sources}
    wanted = [(name, worst) for name, passages in picks.items() for worst in passages]
    replays = list(replay(bundle, clips, options, wanted))
    sheets = []
    for name in comparison.sources:
        rows = sorted((r for r in replays if r.source == name), key=lambda r: (r.worst.agreement, -r.worst.mistakes))
        if not rows:
            continue
        sheets.append(name)
        sheet = worst_sheet(rows, bundle.manifest.classes, comparison.measure, comparison.confidence)
        with write_errors(out):
            sheet.save(out / f"worst-{name}.jpg", quality=88)
    with write_errors(out):
        (out / "report.md").write_text(_markdown(comparison, sheets), encoding="utf-8")


def _source_rows(comparison: Comparison) -> list[list[str]]:
    """Return a row for each source, below a row of titles."""
    ages = sorted({age for source in comparison.sources.values() for age in source.by_age})
    shown = sorted({ages[round(p)] for p in np.linspace(0, len(ages) - 1, 5)}) if ages else []
    has_errors = any(source.feature_error is not None for source in comparison.sources.values())
    has_cuts = any(video.cuts for video in comparison.videos) and comparison.cuts
    titles = [f"{comparison.measure} by key age", *(str(age) for age in shown), "mean"]
    titles += ["no cuts"] if has_cuts else []
    titles += ["worst 5 %"]
    titles += ["features"] if has_errors else []
    titles += ["key ms", "prop. ms", f"keeps {comparison.keep:g}"]
    rows = [titles]
    for name, source in comparison.sources.items():
        row = [name, *(_share(source.by_age.get(age)) for age in shown), _share(source.mean)]
        row += [_share(source.mean_without_cuts)] if has_cuts else []
        row += [_share(source.worst_mean)]
        row += [_share(source.feature_error)] if has_errors else []
        row += [f"{source.key_ms:.1f}", f"{source.ms:.1f}"]
        row += [f"interval {source.longest}" if source.longest > 1 else "-"]
        rows.append(row)
    return rows


def _interval_rows(comparison: Comparison) -> list[list[str]]:
    """Return a row for each source and schedule, below a row of titles."""
    intervals = sorted({interval for source in comparison.sources.values() for interval in source.intervals})
    shown = sorted({intervals[round(p)] for p in np.linspace(0, len(intervals) - 1, 5)}) if intervals else []
    rows = [[f"{comparison.measure} (speed-up) by interval", *map(str, shown)]]
    for name, source in comparison.sources.items():
        figures = [source.intervals.get(interval) for interval in shown]
        rows.append([name, *(f"{_share(f.agreement)} ({f.speed_up:.1f}x)" if f else "-" for f in figures)])
    return rows


def _remarks(comparison: Comparison) -> list[str]:
    lines = [
        f"{s.source}, {s.schedule}: {comparison.measure} {_share(s.agreement)} at a mean interval of {s.interval:.1f}, "
        f"{s.ms:.1f} ms a frame, {s.speed_up:.1f} times as fast as per frame"
        for s in comparison.schedules
    ]
    lines.append(f"Per frame: {comparison.per_frame_ms:.1f} ms. {recommendation(comparison)}")
    copied = comparison.sources.get("none")
    worse = [name for name, source in comparison.sources.items() if copied is not None and source.mean < copied.mean]
    if worse:
        lines.append(f"Worse than copying the features: {', '.join(worse)}.")
    lines += [
        f"{name} wasn't available on {source.replaced:.0%} of the frames, where another source was used."
        for name, source in comparison.sources.items()
        if source.replaced
    ]
    for video in comparison.videos:
        cuts = f", cuts at {', '.join(f'{cut:.2f}' for cut in video.cuts)} s" if video.cuts else ", no cuts"
        lines.append(
            f"{video.video}: {video.width}x{video.height}, {video.frames} frames at {video.fps:.1f} fps{cuts}; the "
            f"network ran on {video.evaluated}, results were propagated from {video.key_starts}."
        )
    lines.append(
        f"{comparison.model} {comparison.version}, {comparison.backend} {comparison.precision} on {comparison.device}."
    )
    return lines


def recommendation(comparison: Comparison) -> str:
    """Return the recommendation as a sentence."""
    best: Recommended = comparison.recommended
    if best.source is None:
        return f"Nothing keeps {comparison.keep:g} and costs less: run the network on every frame."
    schedule = f"interval {best.interval:g}" if best.schedule == "fixed" else best.schedule
    return (
        f"Recommended to keep {comparison.keep:g}: motion {best.source}, {schedule}, which agrees to "
        f"{_share(best.agreement)} and takes {best.ms:.1f} ms a frame, {best.speed_up:.1f} times as fast."
    )


def _share(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _markdown(comparison: Comparison, sheets: Sequence[str]) -> str:
    parts = [f"# {comparison.model} {comparison.version}: propagated against per frame", recommendation(comparison)]
    parts += [_markdown_table(_source_rows(comparison)), _markdown_table(_interval_rows(comparison))]
    parts.append("\n".join(f"- {line}" for line in _remarks(comparison)))
    parts.append("![Agreement over key age and over cost](agreement.png)")
    for name in sheets:
        source = comparison.sources[name]
        worst = [["video", "time, s", "frame", "key age", "age, s", comparison.measure]]
        worst += [
            [w.video, f"{w.time:.2f}", str(w.frame), str(w.age), f"{w.age_seconds:.2f}", _share(w.agreement)]
            for w in worst_passages(comparison, name, WORST_ROWS)
        ]
        parts += [
            f"## Worst frames of {name}",
            f"The worst 5 % of its results agree to {_share(source.worst_mean)}; report.json lists them all.",
            _markdown_table(worst),
            f"![Worst frames of {name}](<worst-{name}.jpg>)",
        ]
    return "\n\n".join(parts) + "\n"


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))
