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
from keywarp.commands.comparison_pictures import agreement_charts, passage_sheet, worst_sheet
from keywarp.engines import Bundle
from keywarp.engines.comparison import (
    Clip,
    Comparison,
    Options,
    Recommended,
    moving_passages,
    open_measure,
    replay,
    replay_passages,
    worst_passages,
)

WORST_ROWS = 6  # of the picture of a source's worst frames
PASSAGES = 4  # that are shown with all sources
PASSAGE_AGES = 5  # key ages of a passage that are shown


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
    for rows in _tables(comparison):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
        for number, name in enumerate(rows[0]):
            table.add_column(name, justify="right" if number else "left", no_wrap=number > 0, overflow="fold")
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
        out: The folder, which is created if it doesn't exist.

    Raises:
        CommandError: If a file can't be written.
        EngineError: If an engine fails.
    """
    with write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
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
        sheet = worst_sheet(rows, bundle.manifest, comparison.measure, comparison.confidence)
        with write_errors(out):
            sheet.save(out / f"worst-{name}.jpg", quality=88)
    starts = moving_passages(comparison, PASSAGES)
    ages = sorted({round(age) for age in np.linspace(0, options.ages, PASSAGE_AGES)})
    measure = open_measure(bundle.manifest, comparison.confidence)
    passages = replay_passages(bundle, clips, options, starts, ages)
    for number, passage in enumerate(passages, start=1):
        with write_errors(out):
            sheet = passage_sheet(passage, bundle.manifest, measure, comparison.confidence)
            sheet.save(out / f"passage-{number}.jpg", quality=88)
    with write_errors(out):
        (out / "report.md").write_text(_markdown(comparison, sheets, len(passages)), encoding="utf-8")


def _tables(comparison: Comparison) -> list[list[list[str]]]:
    """Return tables as rows of cells. The first row of each holds the titles."""
    tables = [_age_rows(comparison), _interval_rows(comparison), _cost_rows(comparison)]
    return [*tables, _schedule_rows(comparison)] if comparison.schedules else tables


def _age_rows(comparison: Comparison) -> list[list[str]]:
    ages = sorted({age for source in comparison.sources.values() for age in source.by_age})
    shown = sorted({ages[round(p)] for p in np.linspace(0, len(ages) - 1, 5)}) if ages else []
    has_errors = any(source.feature_error is not None for source in comparison.sources.values())
    has_cuts = any(video.cuts for video in comparison.videos) and comparison.cuts
    titles = [f"{comparison.measure} at key age", *map(str, shown), "mean"]
    titles += ["no cuts"] if has_cuts else []
    titles += ["worst"]
    titles += ["features"] if has_errors else []
    rows = [titles]
    for name, source in comparison.sources.items():
        row = [name, *(share(source.by_age.get(age)) for age in shown), share(source.mean)]
        row += [share(source.mean_without_cuts)] if has_cuts else []
        row += [share(source.worst_mean)]
        row += [share(source.feature_error)] if has_errors else []
        rows.append(row)
    return rows


def _interval_rows(comparison: Comparison) -> list[list[str]]:
    rows = [[f"{comparison.measure} at interval", *map(str, comparison.intervals), f"keeps {comparison.keep:g}"]]
    for name, source in comparison.sources.items():
        figures = [source.intervals.get(interval) for interval in comparison.intervals]
        cells = [f"{share(f.agreement)} {f.speed_up:.1f}x" if f else "-" for f in figures]
        rows.append([name, *cells, f"up to {source.longest}" if source.longest > 1 else "-"])
    return rows


def _cost_rows(comparison: Comparison) -> list[list[str]]:
    first, *others = comparison.intervals
    rows = [["ms a frame", "key", "propagated", f"at interval {first}", *map(str, others)]]
    for name, source in comparison.sources.items():
        figures = [source.intervals.get(interval) for interval in comparison.intervals]
        cells = [f"{f.ms:.1f}" if f else "-" for f in figures]
        rows.append([name, f"{source.key_ms:.1f}", f"{source.ms:.1f}", *cells])
    return rows


def _schedule_rows(comparison: Comparison) -> list[list[str]]:
    names = list(dict.fromkeys(found.schedule for found in comparison.schedules))
    rows = [[f"{comparison.measure} (mean interval)", *names]]
    for source in comparison.sources:
        found = {f.schedule: f for f in comparison.schedules if f.source == source}
        cells = [f"{share(f.agreement)} {f.speed_up:.1f}x ({f.interval:.1f})" for f in map(found.__getitem__, names)]
        rows.append([source, *cells])
    return rows


def _remarks(comparison: Comparison) -> list[str]:
    lines = ["Features: error relative to copying. Worst: mean of the worst 5 %. x: speed-up over per frame."]
    lines.append(f"Per frame: {comparison.per_frame_ms:.1f} ms. {recommendation(comparison)}")
    itself = f"The network agrees with itself to {share(comparison.self_agreement)} if the picture moves by one pixel"
    if all(source.mean <= comparison.self_agreement for source in comparison.sources.values()):
        itself += ": no propagation can be expected to agree better"
    lines.append(f"{itself}.")
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
        f"{comparison.model} {comparison.version}, {comparison.backend} {comparison.precision} on {comparison.device}"
        + ("." if comparison.reference == comparison.precision else f"; per frame in {comparison.reference}.")
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
        f"{share(best.agreement)} and takes {best.ms:.1f} ms a frame, {best.speed_up:.1f} times as fast."
    )


def share(value: float | None) -> str:
    """Return a figure with three decimals, without the zero in front of them."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}".removeprefix("0")


def _markdown(comparison: Comparison, sheets: Sequence[str], passages: int) -> str:
    parts = [f"# {comparison.model} {comparison.version}: propagated against per frame", recommendation(comparison)]
    parts += [_markdown_table(rows) for rows in _tables(comparison)]
    parts.append("\n".join(f"- {line}" for line in _remarks(comparison)))
    parts.append("![Agreement over key age and over cost](agreement.png)")
    if passages:
        parts.append("## Passages in which much moves")
    parts += [f"![Passage {number}](passage-{number}.jpg)" for number in range(1, passages + 1)]
    for name in sheets:
        source = comparison.sources[name]
        worst = [["video", "time, s", "frame", "key age", "age, s", comparison.measure]]
        worst += [
            [w.video, f"{w.time:.2f}", str(w.frame), str(w.age), f"{w.age_seconds:.2f}", share(w.agreement)]
            for w in worst_passages(comparison, name, WORST_ROWS)
        ]
        parts += [
            f"## Worst frames of {name}",
            f"The worst 5 % of its results agree to {share(source.worst_mean)}; report.json lists them all.",
            _markdown_table(worst),
            f"![Worst frames of {name}](worst-{name}.jpg)",
        ]
    return "\n\n".join(parts) + "\n"


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))
