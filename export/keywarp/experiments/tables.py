"""The experiments `table2`, `table4` and `table5`, which show the paper's figures next to ours."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from keywarp.choices import PaperMotion, Task, Variant
from keywarp.experiments.presets import FLOWS, TASKS
from keywarp.experiments.report import Report, machine, table
from keywarp.experiments.runner import Run, Runner
from keywarp.experiments.timing import FrameTimes, measure_frame_times
from keywarp.networks import build_network
from keywarp.networks.checkpoint import build_recognition
from keywarp.networks.complexity import measure, table_2
from keywarp.training.evaluation import Accuracy
from keywarp.training.metrics import DetectionMetric, SegmentationMetric
from keywarp.training.variants import METHODS

# Table 4 and section 5.2: accuracy in % and frames per second on a K40, or None where the paper has no figure
PAPER: dict[Task, dict[Variant, tuple[float | None, float | None]]] = {
    "segmentation": {
        "frame": (71.1, 1.52),
        "sff_slow": (67.8, 0.08),
        "sff_fast": (67.3, 0.95),
        "dff": (69.2, 5.60),
        "fix_n": (68.8, 5.60),
        "fix_f": (67.0, 5.60),
        "separate": (66.9, 5.60),
        "no_scale": (None, None),
        "from_frame": (None, None),
        "copy": (None, None),
    },
    "detection": {
        "frame": (73.9, 4.05),
        "sff_slow": (70.7, 0.26),
        "sff_fast": (69.7, 3.04),
        "dff": (73.1, 20.25),
        "fix_n": (72.3, 20.25),
        "fix_f": (68.8, 20.25),
        "separate": (67.4, 20.25),
        "no_scale": (None, None),
        "from_frame": (None, None),
        "copy": (None, None),
    },
}
# Table 5: accuracy in % and frames per second, by layers of the head
PAPER_SPLITS: dict[Task, dict[int, tuple[float, float]]] = {
    "segmentation": {21: (69.1, 2.87), 12: (69.1, 3.14), 5: (69.2, 3.89), 1: (69.2, 5.60), 0: (69.5, 5.61)},
    "detection": {21: (73.2, 7.23), 12: (73.3, 8.04), 5: (73.2, 9.99), 1: (73.1, 20.25), 0: (72.7, 20.40)},
}
METRIC_NAMES: dict[Task, str] = {"segmentation": SegmentationMetric.name, "detection": DetectionMetric.name}
MOTIONS: tuple[PaperMotion, ...] = ("network", "none", "sift-fast", "sift-slow")  # motion sources of Table 4
# Variants that are evaluated with Frame's networks, since they train no networks themselves
ON_FRAME: tuple[Variant, ...] = ("frame", "sff_slow", "sff_fast", "copy")


def table2(runner: Runner) -> Report:
    """Compare the complexity of feature and flow networks, both the paper's and the preset's compact ones."""
    rows = []
    figures: dict[str, Any] = {}
    for features, ratios in table_2().items():
        figures[features] = {flow: {"ratio": pair.ratio, "paper": pair.paper} for flow, pair in ratios.items()}
        for flow, pair in ratios.items():
            rows.append([f"{features}, {flow}", f"{pair.ratio:.2f}", f"{pair.paper:.2f}"])
    compact = preset_ratios(runner)
    figures["preset"] = {flow: {"ratio": ratio} for flow, ratio in compact.items()}
    rows += [[f"preset {runner.preset.name}, {flow}", f"{ratio:.2f}", "-"] for flow, ratio in compact.items()]
    text = [
        "Operations of the feature network per operation of the flow network (1/r of Eq. 6), for the paper's networks "
        "at 600x1000 and for those of this preset. Convolutions and deconvolutions are counted, with the scale field.",
        table(["networks", "ours", "paper"], rows),
    ]
    return Report("table2", "Table 2: complexity", figures, text)


def preset_ratios(runner: Runner) -> dict[str, float]:
    """Return 1/r of the preset's networks, by flow network."""
    recipe = runner.preset.recipes["segmentation"]
    height, width = recipe.image.short_side, recipe.image.long_side
    half = (1, 3, -(-height // 2), -(-width // 2))
    ratios = {}
    for flow in FLOWS:
        changed = recipe.model_copy(update={"network": recipe.network.model_copy(update={"flow": flow})})
        with torch.device("meta"):
            options = changed.network.options(2, changed.task)
            flow_network = build_network(options).flow
        features = measure(build_recognition(options).backbone, (1, 3, height, width)).operations
        ratios[flow] = features / measure(flow_network, half, half).operations
    return ratios


def table4(runner: Runner) -> Report:
    """Measure all variants on both tasks, over several seeds."""
    figures: dict[str, dict[str, Any]] = {}
    text = [
        f"{_describe_setting(runner)} Mean and standard deviation over {len(runner.preset.seeds)} seeds of joint "
        "training. All variants share the pre-trained networks; all but Frame, DFF, fix F and DFF without scale "
        "field start from Frame's trained network. `DFF leads by` is DFF's lead in points, compared seed by seed. "
        "`worst age` is the accuracy at the worst key age."
    ]
    for task in TASKS:
        interval = runner.preset.recipes[task].key_interval
        figures[task] = {}
        rows = []
        accuracy = measure_variants(runner, task)
        run = Run(task, seed=runner.preset.seeds[0])
        times = measure_frame_times(runner, "table4", {motion: (run, motion) for motion in MOTIONS})
        for variant in runner.preset.variants:
            seeds = [100 * of_seed.mean for of_seed in accuracy[variant]]
            leads = [100 * dff.mean - seed for dff, seed in zip(accuracy["dff"], seeds, strict=True)]
            lead = "-" if variant == "dff" else _spread(leads, "+.1f")
            worst = statistics.mean(100 * of_seed.worst for of_seed in accuracy[variant])
            speed = _speed(times, variant, interval)
            paper, paper_speed = PAPER[task][variant]
            figures[task][variant] = {
                "mean": statistics.mean(seeds),
                "std": statistics.stdev(seeds),
                "seeds": seeds,
                "dff_leads_by": {"mean": statistics.mean(leads), "std": statistics.stdev(leads)},
                "paper": paper,
                "worst_age": worst,
                "fps": speed,
                "paper_fps": paper_speed,
            }
            rows.append(
                [
                    METHODS[variant].title,
                    _spread(seeds),
                    lead,
                    f"{worst:.1f}",
                    f"{speed:.1f}",
                    _or_dash(paper),
                    _or_dash(paper_speed, 2),
                ]
            )
        speed_by = f"fps ({times['network'].backend})"
        columns = [METRIC_NAMES[task], "DFF leads by", "worst age", speed_by, "paper's %", "paper's fps (K40)"]
        text += [table([f"{task}, l = {interval}", *columns], rows), _retained_accuracy(figures[task])]
    return Report("table4", "Table 4: Frame, shallow and deep feature flow", figures, text)


def measure_variants(runner: Runner, task: Task) -> dict[Variant, list[Accuracy]]:
    """Return the accuracies of every variant of Table 4, one for each seed."""
    interval = runner.preset.recipes[task].key_interval
    evaluated: dict[Variant, tuple[Variant, ...]] = {"frame": ON_FRAME}  # by the variant whose networks are trained
    evaluated |= {variant: (variant,) for variant in runner.preset.variants if variant not in ON_FRAME}
    accuracies: dict[Variant, list[Accuracy]] = {variant: [] for variant in runner.preset.variants}
    for seed in runner.preset.seeds:
        for trained, variants in evaluated.items():
            for variant, accuracy in runner.accuracy(Run(task, trained, seed), variants, interval).items():
                accuracies[variant].append(accuracy)
    return accuracies


def table5(runner: Runner) -> Report:
    """Measure DFF with the network cut at different layers."""
    figures: dict[str, Any] = {}
    text = [
        "DFF, trained and evaluated with different split points. `layers` is the number of layers with weights that "
        f"run on every frame. One seed. {_describe_setting(runner)}"
    ]
    for task in TASKS:
        interval = runner.preset.recipes[task].key_interval
        rows = []
        figures[task] = {}
        base = Run(task, seed=runner.preset.seeds[0])
        default = runner.recipe(base).network.head_layers
        runs = {str(n): replace(base, head_layers=None if n == default else n) for n in runner.preset.head_layers}
        values = {layers: 100 * runner.accuracy(run, ["dff"], interval)["dff"].mean for layers, run in runs.items()}
        times = measure_frame_times(runner, "table5", {layers: (run, "network") for layers, run in runs.items()})
        for layers, value in values.items():
            speed = times[layers].frames_per_second(interval)
            paper, paper_speed = PAPER_SPLITS[task][int(layers)]
            figures[task][layers] = {"value": value, "fps": speed, "paper": paper, "paper_fps": paper_speed}
            rows.append([layers, f"{value:.1f}", f"{speed:.1f}", f"{paper:.1f}", f"{paper_speed:.2f}"])
        columns = [METRIC_NAMES[task], f"fps ({times[layers].backend})", "paper's %", "paper's fps (K40)"]
        text.append(table([f"layers, {task}, l = {interval}", *columns], rows))
        text.append(f"Largest difference: {max(values.values()) - min(values.values()):.1f} points.")
    return Report("table5", "Table 5: split points", figures, text)


def _speed(times: Mapping[str, FrameTimes], variant: Variant, interval: int) -> float:
    """Return a variant's frames per second, which depend only on its motion source."""
    motion = METHODS[variant].motion
    if motion == "every-frame":
        return 1 / times["network"].key
    return times[motion].frames_per_second(interval)


def _retained_accuracy(entries: dict[str, Any]) -> str:
    frame, dff = entries["frame"], entries["dff"]
    ours, paper = 100 * dff["mean"] / frame["mean"], 100 * dff["paper"] / frame["paper"]
    return f"DFF keeps {ours:.1f} % of Frame's accuracy (in the paper {paper:.1f} %)."


def _describe_setting(runner: Runner) -> str:
    preset = runner.preset
    sizes = [f"{r.image.short_side}x{r.image.long_side} for {task}" for task, r in preset.recipes.items()]
    ratio = preset_ratios(runner)[preset.recipes["segmentation"].network.flow]
    return (
        f"Preset `{preset.name}`: frames of {' and '.join(sizes)}, feature network to flow network {ratio:.1f} : 1. "
        "Accuracy is the mean over key ages 0 .. l - 1 in %, by the paper's protocol. Speed is that of one stream "
        f"through the engine, batch 1, on {machine()}."
    )


def _spread(values: Sequence[float], form: str = ".1f") -> str:
    return f"{statistics.mean(values):{form}} ± {statistics.stdev(values):.1f}"


def _or_dash(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
