"""The experiment `adaptive`, which compares adaptive key frames with fixed intervals of the same average cost.

It runs videos with cuts through the engine. The paper leaves key frame scheduling to future work (section 3, "Key Frame
Scheduling", and section 6).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from keywarp.datasets import Image, Truth
from keywarp.datasets.moving_scenes import MovingScenes
from keywarp.engines import (
    AdaptiveInterval,
    Detections,
    Engine,
    FixedInterval,
    FrameKind,
    FrameResult,
    KeySchedule,
    LabelMap,
    StreamSession,
)
from keywarp.experiments.errors import ExperimentError
from keywarp.experiments.presets import TASKS
from keywarp.experiments.report import Report, table
from keywarp.experiments.runner import Run, Runner
from keywarp.experiments.tables import METRIC_NAMES
from keywarp.experiments.timing import run_bundle
from keywarp.networks.regions import Objects
from keywarp.training.metrics import DetectionMetric, Metric, SegmentationMetric

INTERVALS = (2, 3, 5, 7, 10, 15)  # frames; target intervals of the adaptive schedules, and fixed intervals
SHARES = (2, 5, 10, 20, 50, 100)  # shares of key frames that are marked on the axis, %
REACH = 3  # the longest interval of an adaptive schedule, as a multiple of its target
FIXED = (1, *INTERVALS, REACH * INTERVALS[-1])  # fixed intervals; every adaptive schedule costs between first and last


@dataclass(frozen=True)
class Video:
    """A clip in memory, with labels for every frame."""

    frames: Sequence[Image]
    truths: Sequence[Truth]
    cuts: int  # number of cuts


@dataclass(frozen=True)
class Point:
    """The cost and the accuracy of a schedule."""

    target: int  # intended mean interval in frames
    interval: float  # actual mean interval in frames
    accuracy: float  # accuracy over all frames, 0..1


def adaptive(runner: Runner) -> Report:
    """Measure the accuracy over all frames of clips with cuts, by the share of key frames."""
    preset = runner.preset
    figures: dict[str, Any] = {}
    picture = Figure(figsize=(10, 4), layout="constrained")
    text = []
    for task, axis in zip(TASKS, picture.subplots(1, len(TASKS)), strict=True):
        run = Run(task, seed=preset.seeds[0])
        source = runner.evaluation(task)
        if not isinstance(source, MovingScenes):
            raise ExperimentError(
                f"the preset {preset.name} has no videos with labels for every frame; use cpu or smoke"
            )
        engine = Engine(run_bundle(runner, run))
        runner.reporter.stage(f"rendering clips for {task}", preset.clips)
        videos = [_video(source, number, runner) for number in range(preset.clips)]
        fixed = [_point(runner, engine, videos, n, FixedInterval(n)) for n in FIXED]
        adapted = [_point(runner, engine, videos, n, AdaptiveInterval(target=n, maximum=REACH * n)) for n in INTERVALS]
        gains = [100 * (point.accuracy - accuracy_at_interval(fixed, point.interval)) for point in adapted]
        figures[task] = {
            "fixed": [_entry(point) for point in fixed],
            "adaptive": [{**_entry(p), "gain_at_equal_cost": gain} for p, gain in zip(adapted, gains, strict=True)],
        }
        for name, points in (("fixed interval", fixed), ("adaptive", adapted)):
            shares = [100 / point.interval for point in points]
            axis.plot(shares, [100 * point.accuracy for point in points], marker="o", ms=3, label=name)
        axis.set(xlabel="key frames, % of all", ylabel=f"{METRIC_NAMES[task]}, %", title=task, xscale="log")
        axis.set_xticks(SHARES, labels=map(str, SHARES))
        axis.minorticks_off()
        axis.legend()
        axis.grid(alpha=0.3)
        rows = [
            [
                constant.target,
                f"{100 * constant.accuracy:.1f}",
                f"{changing.interval:.1f}",
                f"{100 * changing.accuracy:.1f}",
                f"{gain:+.1f}",
            ]
            for constant, changing, gain in zip(fixed[1:], adapted, gains, strict=False)
        ]
        columns = [f"interval, {task}", "fixed, %", "adaptive: interval", "adaptive, %", "gain at equal cost"]
        cuts = sum(video.cuts for video in videos)
        frames = sum(len(video.frames) for video in videos)
        text += [
            f"{METRIC_NAMES[task]} of DFF over all frames of {len(videos)} clips of Moving Scenes ({frames} frames "
            f"with {cuts} cuts in all), which run as streams through the engine ({engine.backend.name}, "
            f"{engine.backend.precision}). The gain is the difference in points to a fixed interval of the same "
            "average cost, interpolated between two intervals by the share of key frames. If every frame is a key "
            f"frame, the accuracy is {100 * fixed[0].accuracy:.1f} %.",
            table(columns, rows),
        ]
    return Report("adaptive", "Adaptive key frames against fixed intervals", figures, text, picture)


def accuracy_at_interval(points: Sequence[Point], interval: float) -> float:
    """Interpolate the accuracy at a mean interval between points, by the share of key frames."""
    by_share = sorted((1 / point.interval, point.accuracy) for point in points)
    shares, accuracy = zip(*by_share, strict=True)
    return float(np.interp(1 / interval, shares, accuracy))


def _video(source: MovingScenes, number: int, runner: Runner) -> Video:
    clip = source.clip(number, runner.preset.clip_frames)
    frames = list(clip)
    runner.reporter.step()
    return Video([frame.image for frame in frames], [frame.truth for frame in frames], len(clip.cuts))


def _point(runner: Runner, engine: Engine, videos: Sequence[Video], target: int, schedule: KeySchedule) -> Point:
    """Run all videos as streams with a key schedule, and measure its cost and accuracy."""
    classes = len(engine.bundle.manifest.classes)
    segments = engine.bundle.manifest.task == "segmentation"
    metric: Metric = SegmentationMetric(classes) if segments else DetectionMetric(classes)
    keys = frames = 0
    runner.reporter.stage(f"streaming, {type(schedule).__name__} {target}", len(videos))
    for video in videos:
        session = StreamSession(engine, schedule)
        for frame, truth in zip(video.frames, video.truths, strict=True):
            result = session.process(frame)
            _add_result(metric, truth, result)
            keys += result.kind is FrameKind.KEY
            frames += 1
        runner.reporter.step()
        runner.check_time()
    return Point(target, frames / keys, metric.value())


def _add_result(metric: Metric, truth: Truth, result: FrameResult) -> None:
    if isinstance(result.output, LabelMap):
        assert isinstance(metric, SegmentationMetric)
        assert truth.labels is not None
        metric.add(truth.labels, result.output.labels)
        return
    assert isinstance(metric, DetectionMetric)
    assert isinstance(result.output, Detections)
    assert truth.boxes is not None
    detections = result.output
    parts = (detections.xyxy, detections.confidence, detections.class_id)
    boxes, scores, labels = (torch.from_numpy(part) for part in parts)
    metric.add(truth.boxes, Objects(boxes, scores, labels))


def _entry(point: Point) -> dict[str, float]:
    return {"asked": point.target, "interval": point.interval, "accuracy": 100 * point.accuracy}
