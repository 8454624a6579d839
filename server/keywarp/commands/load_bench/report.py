"""What a load test prints, and its picture."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table

from keywarp.commands.charts import Chart, Color, Line, draw_charts
from keywarp.commands.load_bench.objective import Objective
from keywarp.commands.load_bench.step import Step
from keywarp.commands.load_bench.tally import KINDS, Latencies

COLORS: Final[tuple[Color, ...]] = ((31, 119, 180), (214, 91, 34), (44, 140, 80), (148, 103, 189))
NINES: Final = (0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0)


def describe_interval(interval: int | None) -> str:
    """Name a key interval."""
    return "the model's interval" if interval is None else f"interval {interval}"


def describe_step(step: Step, objective: Objective | None) -> str:
    """Describe a step in one line."""
    name = f"{step.cameras} cameras, {describe_interval(step.interval)}"
    if step.refused:
        return f"{name}: refused: {step.refused}"
    p99 = f"p99 {1000 * step.tally.all_latencies.percentile(99):.0f} ms"
    if objective is None:
        return f"{name}: {p99}"
    missed = objective.misses(step.tally)
    late = " (the generator was late)" if missed and step.is_late(objective.tightest) else ""
    return f"{name}: {p99}, {'missed: ' + ', '.join(missed) if missed else 'met'}{late}"


def print_steps(console: Console, steps: Sequence[Step]) -> None:
    """Print a table with a row for each step."""
    table = Table(title="keywarp bench load", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("cameras", "interval", "results/s", "key", "p50", "p90", "p99", "max", "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("server: cores", "memory", "generator: cores", "late, p99", "others: cores"):
        table.add_column(name, justify="right", no_wrap=True)
    for step in steps:
        merged = step.tally.all_latencies
        server, lost = step.server, step.tally.due - step.tally.results
        table.add_row(
            f"{step.cameras}",
            "-" if step.interval is None else f"{step.interval}",
            f"{step.tally.results / step.seconds:.1f}",
            f"{100 * step.key_share:.0f} %",
            *(f"{1000 * merged.percentile(share):.0f} ms" for share in (50, 90, 99, 100)),
            "refused" if step.refused else f"{100 * lost / step.tally.due:.1f} %" if step.tally.due else "-",
            "-" if server.cores is None else f"{server.cores:.2f}",
            "-" if server.memory is None else f"{server.memory / 2**20:.0f} MB",
            f"{step.generator:.2f}",
            f"{1000 * step.tally.lateness.percentile(99):.1f} ms",
            "-" if step.others is None else f"{step.others:.2f}",
        )
    console.print(table)


def print_step(console: Console, step: Step) -> None:
    """Print a step's latencies by kind of frame, where the time went, and the losses by reason."""
    table = Table(title=f"{step.cameras} cameras, {describe_interval(step.interval)}", title_justify="left")
    table.box = box.SIMPLE_HEAD
    for name in ("", "results", "p50", "p90", "p99", "p99.9", "max", "decode", "queue", "inference", "postprocess"):
        table.add_column(name, justify="right" if name else "left")
    for kind in KINDS:
        latencies = step.tally.latencies[kind]
        if not len(latencies):
            continue
        stages = step.tally.stages[kind]
        table.add_row(
            kind,
            f"{len(latencies)}",
            *(f"{1000 * latencies.percentile(share):.0f} ms" for share in (50, 90, 99, 99.9, 100)),
            *(
                f"{1000 * stages[stage] / len(latencies):.1f} ms"
                for stage in ("decode", "queue", "inference", "postprocess")
            ),
        )
    console.print(table)
    if step.tally.results:
        age = step.tally.ages / step.tally.results
        console.print(f"key frames: {100 * step.key_share:.1f} % of the results, {age:.2f} s old on average")
    for reason, count in step.tally.lost.most_common():
        console.print(f"lost: {count} of {step.tally.due} frames: {reason}", highlight=False)


def draw(steps: Mapping[str, Sequence[Step]], at_limit: Mapping[str, Step], objective: Objective | None) -> Image.Image:
    """Draw the 99th percentile over the number of cameras, and the latencies at the limit by kind.

    Args:
        steps: All steps that have results, by the name of their series.
        at_limit: The step whose latencies are drawn, of each series.
        objective: The objective, whose latency is drawn as a line.
    """
    lines, curves = [], []
    for color, (name, found) in zip(COLORS, steps.items(), strict=False):
        points = sorted(
            (float(step.cameras), 1000 * step.tally.all_latencies.percentile(99))
            for step in found
            if step.tally.results
        )
        lines.append(Line(name, points, color))
    for number, (name, step) in enumerate(at_limit.items()):
        for offset, kind in enumerate(KINDS):
            if len(latencies := step.tally.latencies[kind]):
                label = f"{name}: {kind}" if len(at_limit) > 1 else kind
                color = COLORS[(2 * number + offset) % len(COLORS)]
                curves.append(Line(label, [(_nines(share), _at(latencies, share)) for share in NINES], color))
    level = 1000 * objective.tightest if objective else None
    over_cameras = Chart(
        "Latency, 99th percentile", "cameras", "ms", lines, level, "objective" if objective else "", whole_x=True
    )
    by_share = Chart("Latency at the limit", "nines: 1 is p90, 2 is p99, 3 is p99.9", "ms", curves)
    return draw_charts([over_cameras, by_share])


def _nines(share: float) -> float:
    return 3.5 if share == 100 else -math.log10(1 - share / 100)


def _at(latencies: Latencies, share: float) -> float:
    return 1000 * latencies.percentile(share)
