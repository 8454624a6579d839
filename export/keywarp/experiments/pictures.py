"""The experiment `figure1`, which draws features, and `figure4` and `figure5`, which draw results after key frames."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from keywarp.choices import Task
from keywarp.datasets import Image, Labels
from keywarp.datasets.samples import Snippet
from keywarp.experiments.report import Report
from keywarp.experiments.runner import Run, Runner
from keywarp.networks import DeepFeatureFlow, half_size, load_checkpoint
from keywarp.networks.regions import Objects
from keywarp.training.evaluation import recognise, to_tensor

EXAMPLES = 3  # rows of Figures 4 and 5
CHANNELS = 2  # channels of the feature maps in Figure 1
CONFIDENT = 0.4  # lowest score of the boxes that are drawn


def figure1(runner: Runner) -> Report:
    """Draw feature maps of a key frame and a later frame, and the former warped to the latter."""
    run = Run("segmentation", seed=runner.preset.seeds[0])
    network = runner.network(run)
    gap = runner.preset.recipes["segmentation"].key_interval - 1
    [snippet] = _examples(runner, "segmentation", 1)
    key, current = to_tensor([snippet.frames[0]]), to_tensor([snippet.frames[-1]])
    with torch.inference_mode():
        of_key, of_current = network.features(key)[0][0], network.features(current)[0][0]
        warped = network.propagate((of_key[None],), current, key)[0][0]
        flow = network.flow(half_size(current), half_size(key)).flow[0].numpy()
    picture = Figure(figsize=(11, 2 * (1 + CHANNELS)), layout="constrained")
    axes = picture.subplots(1 + CHANNELS, 4)
    _show(axes[0, 0], snippet.frames[0], "key frame")
    _show(axes[0, 1], snippet.frames[-1], f"current frame, {gap} later")
    _show(axes[0, 2], snippet.frames[-1], "flow to the key frame")
    stride = network.flow.stride
    rows, columns = np.indices(flow.shape[1:]) * stride + stride // 2
    across, down = flow * stride
    axes[0, 2].quiver(columns, rows, across, down, angles="xy", scale_units="xy", scale=1, color="yellow")
    axes[0, 3].axis("off")
    strongest = of_current.flatten(1).std(1).argsort(descending=True)[:CHANNELS]
    for row, channel in zip(axes[1:], strongest.tolist(), strict=True):
        maps = [of_key[channel], of_current[channel], warped[channel], (warped - of_current)[channel].abs()]
        titles = ["of the key frame", "of the current frame", "warped to the current frame", "difference of the two"]
        highest = float(max(m.max() for m in maps))
        for axis, values, title in zip(row, maps, titles, strict=True):
            axis.imshow(values.numpy(), vmin=0, vmax=highest, cmap="viridis")
            axis.set_title(f"channel {channel} {title}" if axis is row[0] else title, fontsize=8)
            axis.axis("off")
    text = ["Feature maps of a key frame and a later frame, and the former warped along the flow network's flow."]
    return Report("figure1", "Figure 1: features and their propagation", None, text, picture)


def figure4(runner: Runner) -> Report:
    """Draw the segmentation of key frames and of the frames after each."""
    return _results(runner, "segmentation", "figure4", step=1)


def figure5(runner: Runner) -> Report:
    """Draw the detections on key frames and on every second frame after each."""
    return _results(runner, "detection", "figure5", step=2)


def _results(runner: Runner, task: Task, name: str, step: int) -> Report:
    run = Run(task, seed=runner.preset.seeds[0])
    network = runner.network(run)
    classes = load_checkpoint(runner.checkpoint(run)).card.classes
    interval = runner.preset.recipes[task].key_interval
    ages = range(0, interval, step)
    picture = Figure(figsize=(2.4 * len(ages), 1.9 * EXAMPLES), layout="constrained")
    axes = picture.subplots(EXAMPLES, len(ages), squeeze=False)
    for row, snippet in zip(axes, _examples(runner, task, EXAMPLES), strict=False):
        for axis, age in zip(row, ages, strict=True):
            frame = snippet.frames[age]
            result = _recognise_at(network, snippet.frames[0], frame, age)
            _show(axis, frame, "key frame" if age == 0 else f"key frame + {age}")
            if isinstance(result, Objects):
                _draw_boxes(axis, result, classes)
            else:
                axis.imshow(_colour_labels(result, classes))
    for axis in axes.flat:
        axis.axis("off")
    text = [f"{task.capitalize()} with the features of each row's first frame, warped to the other frames."]
    return Report(name, f"Figure {name[-1]}: {task} results", None, text, picture)


def _examples(runner: Runner, task: Task, count: int) -> list[Snippet]:
    """Return snippets that contain a whole key interval."""
    interval = runner.preset.recipes[task].key_interval
    whole = (s for s in runner.evaluation(task).snippets(interval) if len(s.frames) == interval)
    return list(islice(whole, count))


def _recognise_at(network: DeepFeatureFlow[Any], key: Image, frame: Image, age: int) -> Labels | Objects:
    """Return the result on a frame from the key frame's features, which are warped unless the age is 0."""
    with torch.inference_mode():
        features = network.features(to_tensor([key]))
        if age:
            features = network.propagate(features, to_tensor([frame]), to_tensor([key]))
        return recognise(network, features, frame.shape)[0]


def _colour_labels(labels: Labels, classes: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Return the classes' colours (H, W, 4), half transparent, with a transparent background."""
    colors = np.array([(*color, 150) for _, color in classes], np.uint8)
    colors[0, 3] = 0
    return colors[labels]


def _draw_boxes(axis: Axes, objects: Objects, classes: Sequence[Any]) -> None:
    for box, score, label in zip(*(part.tolist() for part in objects), strict=True):
        if score < CONFIDENT:
            continue
        name, color = classes[label]
        shade = tuple(channel / 255 for channel in color)
        axis.add_patch(Rectangle(box[:2], box[2] - box[0], box[3] - box[1], fill=False, edgecolor=shade, linewidth=1.5))
        axis.text(box[0], box[1] - 2, f"{name} {score:.2f}", color=shade, fontsize=6)


def _show(axis: Axes, image: Image, title: str) -> None:
    axis.imshow(image)
    axis.set_title(title, fontsize=8)
    axis.axis("off")
