"""The experiment `motion`, which measures how much accuracy propagation loses with inexact and with exact motion.

Propagated features are worse than the current frame's own for two reasons. Either the flow is wrong, or no flow can be
right, because the current frame shows something that was hidden, out of view or different in the key frame. The exact
motion of Moving Scenes separates the two.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from keywarp.choices import SIFTFlowName
from keywarp.datasets import Image
from keywarp.datasets.moving_scenes import MovingScenes
from keywarp.engines.motion import to_cells
from keywarp.experiments.errors import ExperimentError
from keywarp.experiments.presets import TASKS
from keywarp.experiments.report import Report, table
from keywarp.experiments.runner import Run, Runner
from keywarp.experiments.shallow_feature_flow import warp_along
from keywarp.experiments.tables import METRIC_NAMES
from keywarp.networks import DeepFeatureFlow, load_checkpoint
from keywarp.networks.dff import half_size
from keywarp.networks.flownet import FlowPrediction
from keywarp.training.evaluation import (
    Accuracy,
    Features,
    Pairs,
    Propagation,
    copy_features,
    evaluate,
    to_tensor,
    warp_features,
)

EXACT, SLOW, FAST, NONE = "exact motion", "SIFT-Flow, slow", "SIFT-Flow, fast", "no motion"
TRAINED, PRETRAINED = "flow network, trained jointly", "flow network, pre-trained only"
SHALLOW: Mapping[str, SIFTFlowName] = {SLOW: "sift-slow", FAST: "sift-fast"}
Network = DeepFeatureFlow[Any]
Flow = NDArray[np.float32]  # (1, 2, H, W), from the current frame to a key frame, in cells of the feature maps


class ExactMotion:
    """A propagation along the exact motion of the scenes, with a scale field of 1."""

    def __init__(self, scenes: MovingScenes) -> None:
        """Prepare to propagate on snippets of these scenes."""
        self._scenes = scenes
        self._numbers = {scenes.name(number): number for number in range(len(scenes))}

    def __call__(self, network: Network, features: Features, pairs: Pairs) -> Features:
        """Warp the key features; see `Propagation`."""
        number = self._numbers[pairs.name]
        return warp_along([self.flow(network, number, age) for age in pairs.ages[1:]], network, features)

    def flow(self, network: Network, number: int, age: int) -> Flow:
        """Return the flow from a snippet's last frame to a key frame, averaged over each cell.

        Args:
            network: The networks, which give the size of the cells.
            number: The scene's number.
            age: The key frame's age in frames.
        """
        return to_cells(self._scenes.scene(number).flow(0, -age), network.flow.stride)


def motion(runner: Runner) -> Report:
    """Measure the end-point error of every motion source, and the accuracy with it."""
    preset = runner.preset
    figures: dict[str, Any] = {}
    text = [
        "The error of a flow is its mean distance from the true motion, in cells of the feature map (16 pixels), "
        "hidden points included. Accuracy is the mean over key ages 0 .. l - 1 in %, with Frame's features and with "
        "DFF's. Only the jointly trained flow network has a scale field; for the others it is 1. One seed."
    ]
    picture = Figure(figsize=(10, 4.5), layout="constrained")
    axes = picture.subplots(1, len(TASKS))
    for task, axis in zip(TASKS, axes, strict=True):
        scenes = runner.evaluation(task)
        if not isinstance(scenes, MovingScenes):
            raise ExperimentError(f"the preset {preset.name} has no data with exact motion; use cpu or smoke")
        interval = preset.recipes[task].key_interval
        runs = [Run(task, variant, preset.seeds[0]) for variant in ("separate", "dff")]
        networks = dict(zip((PRETRAINED, TRAINED), map(runner.network, runs), strict=True))
        errors, scales = _errors(runner, scenes, networks, interval)
        on_frame = _accuracy(runner, scenes, runs[0], {PRETRAINED: warp_features}, interval)
        on_dff = _accuracy(runner, scenes, runs[1], {TRAINED: warp_features}, interval)
        figures[task] = {
            name: {
                "error_by_age": list(by_age),
                "on_frame": 100 * on_frame[name].mean if name in on_frame else None,
                "on_dff": 100 * on_dff[name].mean if name in on_dff else None,
                "scale_off_one": scales.get(name, 0.0),
            }
            for name, by_age in errors.items()
        }
        rows = []
        for name, by_age in errors.items():
            axis.plot(range(1, interval), by_age, marker="o", ms=3, label=name)
            accuracy = (f"{100 * found[name].mean:.1f}" if name in found else "-" for found in (on_frame, on_dff))
            rows.append([name, *(f"{error:.2f}" for error in _select_ages(by_age)), *accuracy])
        axis.set(xlabel="frames since the key frame", ylabel="end-point error, cells", title=task)
        axis.grid(alpha=0.3)
        ages = [f"error at age {age}" for age in _select_ages(range(1, interval))]
        columns = [f"{task}, l = {interval}", *ages, *(f"{METRIC_NAMES[task]} on {v}" for v in ("Frame", "DFF"))]
        text += [table(columns, rows), f"The scale field differs from 1 by {scales[TRAINED]:.4f} on average."]
    picture.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    return Report("motion", "The cost of inexact motion", figures, text, picture)


def _errors(
    runner: Runner, scenes: MovingScenes, networks: Mapping[str, Network], interval: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Measure the flows of all motion sources.

    Returns:
        The mean end-point errors in cells at the ages 1, 2, ..., by motion source, and the mean distance of the scale
        field from 1, by network.
    """
    [network, *_] = networks.values()  # all have cells of the same size
    exact = ExactMotion(scenes)
    by_snippet: dict[str, list[list[float]]] = {}
    scales: dict[str, list[float]] = {name: [] for name in networks}
    runner.reporter.stage("measuring flows", len(scenes))
    for number, snippet in enumerate(scenes.snippets(interval)):
        *older, current = snippet.frames
        keys = older[::-1]
        truth = np.concatenate([exact.flow(network, number, age) for age in range(1, interval)])
        flows = {EXACT: truth}
        for name, shallow in SHALLOW.items():
            flows[name] = np.concatenate([runner.shallow_flow(shallow).flow(network, current, key) for key in keys])
        for name, trained in networks.items():
            prediction = _predict_motion(trained, current, keys)
            flows[name] = np.asarray(prediction.flow.numpy(), np.float32)
            scales[name].append(fmean(float((scale - 1).abs().mean()) for scale in prediction.scales))
        flows[NONE] = np.zeros_like(truth)
        for name, flow in flows.items():
            errors = np.hypot(flow[:, 0] - truth[:, 0], flow[:, 1] - truth[:, 1]).mean(axis=(1, 2))
            by_snippet.setdefault(name, []).append([float(error) for error in errors])
        runner.reporter.step()
        runner.check_time()
    by_age = {name: [fmean(at_age) for at_age in zip(*errors, strict=True)] for name, errors in by_snippet.items()}
    return by_age, {name: fmean(values) for name, values in scales.items()}


def _predict_motion(network: Network, current: Image, keys: Sequence[Image]) -> FlowPrediction:
    """Return a flow network's flow and scale fields to each key frame."""
    with torch.inference_mode():
        older = half_size(to_tensor(keys))
        prediction: FlowPrediction = network.flow(half_size(to_tensor([current])).expand_as(older), older)
        return prediction


def _accuracy(
    runner: Runner, scenes: MovingScenes, run: Run, learned: Mapping[str, Propagation], interval: int
) -> dict[str, Accuracy]:
    """Measure the accuracy of a run's networks with each motion source. `learned` is the run's own flow network."""
    propagations: dict[str, Propagation] = {EXACT: ExactMotion(scenes)}
    propagations |= {name: runner.shallow_flow(shallow) for name, shallow in SHALLOW.items()}
    propagations |= {**learned, NONE: copy_features}
    trained = load_checkpoint(runner.checkpoint(run))
    runner.reporter.stage(f"evaluating {run.name} with {len(propagations)} motion sources", len(scenes))

    def progress() -> None:
        runner.reporter.step()
        runner.check_time()

    return evaluate(trained.network(), scenes, trained.options.classes, interval, propagations, progress=progress)


def _select_ages(by_age: Sequence[Any]) -> list[Any]:
    """Select the first, the last and two values in between for a table."""
    last = len(by_age) - 1
    return [by_age[index] for index in sorted({0, last // 3, 2 * last // 3, last})]
