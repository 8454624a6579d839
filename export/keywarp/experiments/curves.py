"""The experiment `figure3`, which plots accuracy against speed, and `ages`, which plots it against the key age."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keywarp.choices import Task
from keywarp.experiments.presets import TASKS
from keywarp.experiments.report import Report, machine, table
from keywarp.experiments.runner import Run, Runner
from keywarp.experiments.tables import METRIC_NAMES, measure_variants
from keywarp.experiments.timing import measure_frame_times
from keywarp.training.evaluation import Accuracy
from keywarp.training.variants import METHODS

TITLES = {"flownet": "FlowNet", "flownet_half": "FlowNet Half", "flownet_inception": "FlowNet Inception"}
LIGHTER = "-lighter"  # ends the names of pairs with the lighter feature network
# Values that section 5.2 gives for Figure 3: (network, accuracy in %, frames per second on a K40)
PAPER: dict[Task, tuple[tuple[str, float, float], ...]] = {
    "segmentation": (
        ("ResNet-101 Frame", 71.1, 1.52),
        ("ResNet-101 FlowNet, l = 5", 69.2, 5.60),
        ("ResNet-50 Frame", 69.7, 2.24),
        ("ResNet-50 FlowNet Inception", 62.4, 17.48),
    ),
    "detection": (
        ("ResNet-101 Frame", 73.9, 4.05),
        ("ResNet-101 FlowNet, l = 10", 73.1, 20.25),
        ("ResNet-101 FlowNet Inception", 69.5, 41.26),
    ),
}


def figure3(runner: Runner) -> Report:
    """Measure accuracy and speed of DFF over the key interval, for each pair of feature and flow network."""
    preset = runner.preset
    figures: dict[str, Any] = {}
    text = [
        "DFF with each flow network at key intervals l = 1, 2, ..., as accuracy (mean over the key ages, in %) against "
        f"frames per second through the engine, batch 1, on {machine()}; one seed. The paper's figure can't be read "
        "exactly; the values that its text gives are below each table."
    ]
    if preset.lighter_blocks:
        text.append(
            f"The lighter feature network has {', '.join(map(str, preset.lighter_blocks))} blocks in its four stages, "
            f"in place of {', '.join(map(str, preset.recipes['segmentation'].network.blocks))}."
        )
    picture = Figure(figsize=(10, 4.5), layout="constrained")
    axes = picture.subplots(1, len(TASKS))
    for task, axis in zip(TASKS, axes, strict=True):
        longest = preset.longest_intervals[task]
        figures[task] = {}
        rows = []
        base = Run(task, seed=preset.seeds[0])
        default = runner.recipe(base).network.flow
        runs = {
            flow + LIGHTER * lighter: replace(base, flow=None if flow == default else flow, lighter=lighter)
            for lighter in ([False, True] if preset.lighter_blocks else [False])
            for flow in preset.flow_networks
        }
        accuracies = {name: runner.accuracy(run, ["dff"], longest)["dff"] for name, run in runs.items()}
        times = measure_frame_times(runner, "figure3", {name: (run, "network") for name, run in runs.items()})
        for name, accuracy in accuracies.items():
            points = [
                {"l": n, "accuracy": 100 * accuracy.until(n).mean, "fps": times[name].frames_per_second(n)}
                for n in range(1, longest + 1)
            ]
            figures[task][name] = points
            title = TITLES[name.removesuffix(LIGHTER)] + (", lighter features" if runs[name].lighter else "")
            style = ":o" if runs[name].lighter else "-o"
            axis.plot([p["fps"] for p in points], [p["accuracy"] for p in points], style, ms=3, label=title)
            rows.append([title, *(f"{p['accuracy']:.1f} ({p['fps']:.0f})" for p in _select_points(points))])
        _label_axes(axis, task, "frames per second")
        columns = [
            f"{task}: {METRIC_NAMES[task]} (fps, {times[name].backend})",
            *(f"l = {p['l']}" for p in _select_points(points)),
        ]
        text.append(table(columns, rows))
        text.append(
            "The paper: " + "; ".join(f"{name}: {value} % at {speed} fps" for name, value, speed in PAPER[task]) + "."
        )
    picture.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    return Report("figure3", "Figure 3: accuracy against speed", figures, text, picture)


def ages(runner: Runner) -> Report:
    """Measure the accuracy of Table 4's variants over the key age."""
    preset = runner.preset
    figures: dict[str, Any] = {}
    text = [
        "Accuracy in % by key age (frames since the key frame), mean over the seeds. Table 4 has the means over the "
        "ages."
    ]
    picture = Figure(figsize=(10, 4.5), layout="constrained")
    axes = picture.subplots(1, len(TASKS))
    for task, axis in zip(TASKS, axes, strict=True):
        by_variant = {
            variant: _mean_over_seeds(accuracies) for variant, accuracies in measure_variants(runner, task).items()
        }
        figures[task] = by_variant
        for variant, values in by_variant.items():
            axis.plot(range(len(values)), values, marker="o", ms=3, label=METHODS[variant].title)
        _label_axes(axis, task, "frames since the key frame")
        frames = range(preset.recipes[task].key_interval)
        axis.set_xticks(frames)
        rows = [[METHODS[v].title, *(f"{value:.1f}" for value in values)] for v, values in by_variant.items()]
        text.append(table([f"{task}, {METRIC_NAMES[task]} at age", *map(str, frames)], rows))
    picture.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    return Report("ages", "Accuracy over the key age", figures, text, picture)


def _mean_over_seeds(accuracies: Sequence[Accuracy]) -> list[float]:
    """Return the mean accuracy over the seeds by key age, in %."""
    return [100 * fmean(values) for values in zip(*(accuracy.by_age for accuracy in accuracies), strict=True)]


def _label_axes(axis: Axes, task: Task, xlabel: str) -> None:
    axis.set(xlabel=xlabel, ylabel=f"{METRIC_NAMES[task]}, %", title=task)
    axis.grid(alpha=0.3)


def _select_points(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Select the first, the last and some points in between for a table."""
    intervals = {1, 2, 3, 5, 7, 10, 15, 20, len(points)}
    return [point for point in points if point["l"] in intervals]
