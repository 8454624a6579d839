"""The paper's tables 2, 4 and 5, theirs beside ours."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from keywarp.choices import PaperMotion, Task, Variant
from keywarp.experiments.laboratory import Laboratory, Run
from keywarp.experiments.presets import FLOWS, TASKS
from keywarp.experiments.report import Report, machine, table
from keywarp.experiments.runtime import Runtime, measure_runtime
from keywarp.networks import build_network
from keywarp.networks.checkpoint import build_recognition
from keywarp.networks.complexity import measure, table_2
from keywarp.training.evaluation import Accuracy
from keywarp.training.metrics import DetectionMetric, SegmentationMetric
from keywarp.training.pipeline import network_options
from keywarp.training.variants import METHODS

# Table 4 and section 5.2: accuracy in %, frames per second on a K40; None: the paper doesn't say
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
MOTIONS: tuple[PaperMotion, ...] = ("network", "none", "sift-fast", "sift-slow")  # that Table 4 compares
# What is evaluated on the networks of Frame, which none of these trains or adds to
ON_FRAME: tuple[Variant, ...] = ("frame", "sff_slow", "sff_fast", "copy")


def table2(laboratory: Laboratory) -> Report:
    """Complexity of feature networks by that of flow networks: the paper's, and this preset's compact ones."""
    rows = []
    figures: dict[str, Any] = {}
    for features, ratios in table_2().items():
        figures[features] = {flow: {"ratio": pair.ratio, "paper": pair.paper} for flow, pair in ratios.items()}
        for flow, pair in ratios.items():
            rows.append([f"{features}, {flow}", f"{pair.ratio:.2f}", f"{pair.paper:.2f}"])
    compact = preset_ratios(laboratory)
    figures["preset"] = {flow: {"ratio": ratio} for flow, ratio in compact.items()}
    rows += [[f"preset {laboratory.preset.name}, {flow}", f"{ratio:.2f}", "-"] for flow, ratio in compact.items()]
    text = [
        "Operations of the feature network for one of the flow network (1/r of Eq. 6): the paper's networks at "
        "600x1000, convolutions and deconvolutions counted, the scale field too; and those of this preset's "
        "experiments.",
        table(["networks", "ours", "paper"], rows),
    ]
    return Report("table2", "Table 2: complexity", figures, text)


def preset_ratios(laboratory: Laboratory) -> dict[str, float]:
    """1/r of the preset's networks, by flow network."""
    recipe = laboratory.preset.recipes["segmentation"]
    height, width = recipe.image.short_side, recipe.image.long_side
    half = (1, 3, -(-height // 2), -(-width // 2))
    ratios = {}
    for flow in FLOWS:
        changed = recipe.model_copy(update={"network": recipe.network.model_copy(update={"flow": flow})})
        with torch.device("meta"):
            options = network_options(changed, 2)
            flow_network = build_network(options).flow
        features = measure(build_recognition(options).backbone, (1, 3, height, width)).operations
        ratios[flow] = features / measure(flow_network, half, half).operations
    return ratios


def table4(laboratory: Laboratory) -> Report:
    """All variants on both tasks, over several seeds."""
    figures: dict[str, dict[str, Any]] = {}
    text = [
        f"{_setting(laboratory)} Mean and standard deviation over {len(laboratory.preset.seeds)} seeds of joint "
        "training; what is pre-trained is the same for all, and all but DFF, fix F and DFF without scale field go on "
        "from Frame's trained network. `DFF leads by` is their difference by seed, in points. "
        "`worst age` is the accuracy at the worst key age."
    ]
    for task in TASKS:
        interval = laboratory.preset.recipes[task].key_interval
        figures[task] = {}
        rows = []
        accuracy = variants(laboratory, task)
        run = Run(task, seed=laboratory.preset.seeds[0])
        runtime = measure_runtime(laboratory, "table4", {motion: (run, motion) for motion in MOTIONS})
        for variant in PAPER[task]:
            seeds = [100 * found.mean for found in accuracy[variant]]
            leads = [100 * dff.mean - seed for dff, seed in zip(accuracy["dff"], seeds, strict=True)]
            lead = "-" if variant == "dff" else _spread(leads, "+.1f")
            worst = statistics.mean(100 * found.worst for found in accuracy[variant])
            speed = _speed(runtime, variant, interval)
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
        speed_by = f"fps ({runtime['network'].backend})"
        columns = [METRIC_NAMES[task], "DFF leads by", "worst age", speed_by, "paper's %", "paper's fps (K40)"]
        text += [table([f"{task}, l = {interval}", *columns], rows), _kept(figures[task])]
    return Report("table4", "Table 4: Frame, shallow and deep feature flow", figures, text)


def variants(laboratory: Laboratory, task: Task) -> dict[Variant, list[Accuracy]]:
    """Accuracy of every variant of Table 4, by seed."""
    interval = laboratory.preset.recipes[task].key_interval
    by_network: dict[Variant, tuple[Variant, ...]] = {"frame": ON_FRAME}
    by_network |= {variant: (variant,) for variant in PAPER[task] if variant not in ON_FRAME}
    found: dict[Variant, list[Accuracy]] = {variant: [] for variant in PAPER[task]}
    for seed in laboratory.preset.seeds:
        for network, ways in by_network.items():
            for way, accuracy in laboratory.accuracy(Run(task, network, seed), ways, interval).items():
                found[way].append(accuracy)
    return found


def table5(laboratory: Laboratory) -> Report:
    """DFF with the network cut at different layers."""
    figures: dict[str, Any] = {}
    text = [
        "DFF, trained and evaluated with the network cut so that so many layers with weights run on every frame; one "
        f"seed. {_setting(laboratory)}"
    ]
    for task in TASKS:
        interval = laboratory.preset.recipes[task].key_interval
        rows = []
        figures[task] = {}
        base = Run(task, seed=laboratory.preset.seeds[0])
        own = laboratory.recipe(base).network.head_layers
        runs = {str(n): replace(base, head_layers=None if n == own else n) for n in laboratory.preset.splits}
        values = {layers: 100 * laboratory.accuracy(run, ["dff"], interval)["dff"].mean for layers, run in runs.items()}
        runtime = measure_runtime(laboratory, "table5", {layers: (run, "network") for layers, run in runs.items()})
        for layers, value in values.items():
            speed = runtime[layers].frames_per_second(interval)
            paper, paper_speed = PAPER_SPLITS[task][int(layers)]
            figures[task][layers] = {"value": value, "fps": speed, "paper": paper, "paper_fps": paper_speed}
            rows.append([layers, f"{value:.1f}", f"{speed:.1f}", f"{paper:.1f}", f"{paper_speed:.2f}"])
        columns = [METRIC_NAMES[task], f"fps ({runtime[layers].backend})", "paper's %", "paper's fps (K40)"]
        text.append(table([f"layers, {task}, l = {interval}", *columns], rows))
        text.append(f"Greatest difference: {max(values.values()) - min(values.values()):.1f} points.")
    return Report("table5", "Table 5: split points", figures, text)


def _speed(runtime: Mapping[str, Runtime], variant: Variant, interval: int) -> float:
    """Frames per second: all variants have the same networks, but for where the motion comes from."""
    motion = METHODS[variant].motion
    if motion == "every-frame":
        return 1 / runtime["network"].key
    return runtime[motion].frames_per_second(interval)


def _kept(entries: dict[str, Any]) -> str:
    frame, dff = entries["frame"], entries["dff"]
    ours, paper = 100 * dff["mean"] / frame["mean"], 100 * dff["paper"] / frame["paper"]
    return f"DFF keeps {ours:.1f} % of Frame's accuracy (in the paper {paper:.1f} %)."


def _setting(laboratory: Laboratory) -> str:
    preset = laboratory.preset
    sizes = [f"{r.image.short_side}x{r.image.long_side} for {task}" for task, r in preset.recipes.items()]
    ratio = preset_ratios(laboratory)[preset.recipes["segmentation"].network.flow]
    return (
        f"Preset `{preset.name}`: frames of {' and '.join(sizes)}, feature network to flow network {ratio:.1f} : 1. "
        "Accuracy is the mean over key ages 0 .. l - 1 in %, by the paper's protocol. Speed is a stream's through the "
        f"engine, batch 1, on {machine()}."
    )


def _spread(values: Sequence[float], form: str = ".1f") -> str:
    return f"{statistics.mean(values):{form}} ± {statistics.stdev(values):.1f}"


def _or_dash(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
