"""What propagation loses to inexact motion, and what exact motion would lose: Moving Scenes know theirs.

It tells apart the two reasons why features of a key frame are worse than the current frame's own: they are moved along
a wrong flow, or no flow leads there, since what the current frame shows was hidden, out of view or looked different.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from keywarp.datasets import Image
from keywarp.datasets.moving_scenes import MovingScenes
from keywarp.engines.motion import OpticalFlowName, to_cells
from keywarp.experiments.errors import ExperimentError
from keywarp.experiments.laboratory import Laboratory, Run
from keywarp.experiments.presets import TASKS
from keywarp.experiments.report import Report, table
from keywarp.experiments.shallow import along
from keywarp.experiments.tables import METRIC_NAMES
from keywarp.networks import DeepFeatureFlow, load_checkpoint
from keywarp.networks.dff import half_size
from keywarp.networks.flownet import FlowPrediction
from keywarp.training.evaluation import Accuracy, Features, Pairs, Propagation, by_copying, by_network, evaluate, tensor
from keywarp.training.variants import Variant

EXACT, SLOW, FAST, NONE = "exact motion", "SIFT-Flow, slow", "SIFT-Flow, fast", "no motion"
TRAINED, PRETRAINED = "flow network, trained jointly", "flow network, pre-trained only"
SHALLOW: Mapping[str, OpticalFlowName] = {SLOW: "sift-slow", FAST: "sift-fast"}
Network = DeepFeatureFlow[Any]
Flow = NDArray[np.float32]  # (1, 2, H, W): from the current frame to a key frame, in cells


class ExactMotion:
    """A propagation along the scenes' own motion, with a scale field of 1."""

    def __init__(self, scenes: MovingScenes) -> None:
        """Of these scenes' snippets."""
        self._scenes = scenes
        self._numbers = {scenes.name(number): number for number in range(len(scenes))}

    def __call__(self, network: Network, features: Features, pairs: Pairs) -> Features:
        """Key features -> the current frame's; the youngest key frame is the frame itself."""
        number = self._numbers[pairs.name]
        return along([self.flow(network, number, age) for age in pairs.ages[1:]], network, features)

    def flow(self, network: Network, number: int, age: int) -> Flow:
        """From a snippet's last frame to one some frames older; its mean over each of the network's cells."""
        return to_cells(self._scenes.scene(number).flow(0, -age), network.flow.stride)


def motion(laboratory: Laboratory) -> Report:
    """End-point errors of every source of motion, and accuracy along it."""
    preset = laboratory.preset
    figures: dict[str, Any] = {}
    text = [
        "The error of a flow is the mean distance between where it leads and where the surface really was, in cells of "
        "the feature map (16 pixels), hidden points too. Accuracy is the mean over key ages 0 .. l - 1 in %, on the "
        "features of Frame and on those of DFF. All but the jointly trained flow network have a scale field of 1. One "
        "seed."
    ]
    picture = Figure(figsize=(10, 4.5), layout="constrained")
    axes = picture.subplots(1, len(TASKS))
    for task, axis in zip(TASKS, axes, strict=True):
        scenes = laboratory.evaluation(task)
        if not isinstance(scenes, MovingScenes):
            raise ExperimentError(f"the exact motion of the data of the preset {preset.name} isn't known")
        interval = preset.recipes[task].key_interval
        runs = [Run(task, variant, preset.seeds[0]) for variant in (Variant.SEPARATE, Variant.DFF)]
        networks = dict(zip((PRETRAINED, TRAINED), map(laboratory.network, runs), strict=True))
        errors, scales = _errors(laboratory, scenes, networks, interval)
        on_frame = _accuracy(laboratory, scenes, runs[0], {PRETRAINED: by_network}, interval)
        on_dff = _accuracy(laboratory, scenes, runs[1], {TRAINED: by_network}, interval)
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
            rows.append([name, *(f"{error:.2f}" for error in _some(by_age)), *accuracy])
        axis.set(xlabel="frames since the key frame", ylabel="end-point error, cells", title=task)
        axis.grid(alpha=0.3)
        ages = [f"error at age {age}" for age in _some(range(1, interval))]
        columns = [f"{task}, l = {interval}", *ages, *(f"{METRIC_NAMES[task]} on {v}" for v in ("Frame", "DFF"))]
        text += [table(columns, rows), f"The scale field differs from 1 by {scales[TRAINED]:.4f} on average."]
    picture.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    return Report("motion", "What propagation loses to inexact motion", figures, text, picture)


def _errors(
    laboratory: Laboratory, scenes: MovingScenes, networks: Mapping[str, Network], interval: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Mean end-point errors in cells by age, from 1 on; and by how much the networks' scale fields differ from 1."""
    [network, *_] = networks.values()  # they have the same cells
    exact = ExactMotion(scenes)
    found: dict[str, list[list[float]]] = {}
    scales: dict[str, list[float]] = {name: [] for name in networks}
    laboratory.reporter.stage("measuring flows", len(scenes))
    for number, snippet in enumerate(scenes.snippets(interval)):
        *older, current = snippet.frames
        keys = older[::-1]
        truth = np.concatenate([exact.flow(network, number, age) for age in range(1, interval)])
        flows = {EXACT: truth}
        for name, shallow in SHALLOW.items():
            flows[name] = np.concatenate([laboratory.shallow(shallow).flow(network, current, key) for key in keys])
        for name, trained in networks.items():
            motion = _motion(trained, current, keys)
            flows[name] = np.asarray(motion.flow.numpy(), np.float32)
            scales[name].append(fmean(float((scale - 1).abs().mean()) for scale in motion.scales))
        flows[NONE] = np.zeros_like(truth)
        for name, flow in flows.items():
            errors = np.hypot(flow[:, 0] - truth[:, 0], flow[:, 1] - truth[:, 1]).mean(axis=(1, 2))
            found.setdefault(name, []).append([float(error) for error in errors])
        laboratory.reporter.step()
        laboratory.check_time()
    by_age = {name: [fmean(at_age) for at_age in zip(*errors, strict=True)] for name, errors in found.items()}
    return by_age, {name: fmean(values) for name, values in scales.items()}


def _motion(network: Network, current: Image, keys: Sequence[Image]) -> FlowPrediction:
    """A flow network's, to each key frame."""
    with torch.inference_mode():
        older = half_size(tensor(keys))
        found: FlowPrediction = network.flow(half_size(tensor([current])).expand_as(older), older)
        return found


def _accuracy(
    laboratory: Laboratory, scenes: MovingScenes, run: Run, own: Mapping[str, Propagation], interval: int
) -> dict[str, Accuracy]:
    """Of a run's networks, along each motion."""
    ways: dict[str, Propagation] = {EXACT: ExactMotion(scenes)}
    ways |= {name: laboratory.shallow(shallow) for name, shallow in SHALLOW.items()}
    ways |= {**own, NONE: by_copying}
    trained = load_checkpoint(laboratory.checkpoint(run))
    laboratory.reporter.stage(f"evaluating {run.name} along {len(ways)} motions", len(scenes))

    def progress() -> None:
        laboratory.reporter.step()
        laboratory.check_time()

    return evaluate(trained.network(), scenes, trained.options.classes, interval, ways, progress=progress)


def _some(by_age: Sequence[Any]) -> list[Any]:
    """A table's worth: the first age, the last, and two between."""
    last = len(by_age) - 1
    return [by_age[index] for index in sorted({0, last // 3, 2 * last // 3, last})]
