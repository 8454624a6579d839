"""Adaptive key frames against fixed intervals at equal average cost, on video with cuts, through the engine.

The paper leaves key frame scheduling to future work (section 3, "Key Frame Scheduling", and section 6).
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
    Engine,
    FixedInterval,
    FrameKind,
    FrameResult,
    KeySchedule,
    LabelMap,
    StreamSession,
)
from keywarp.experiments.errors import ExperimentError
from keywarp.experiments.laboratory import Laboratory, Run
from keywarp.experiments.presets import TASKS
from keywarp.experiments.report import Report, table
from keywarp.experiments.runtime import run_bundle
from keywarp.experiments.tables import METRIC_NAMES
from keywarp.networks.regions import Objects
from keywarp.training.metrics import DetectionMetric, Metric, SegmentationMetric

INTERVALS = (2, 3, 5, 7, 10, 15)  # frames: of the fixed schedules, and on average of the adaptive ones
SHARES = (2, 5, 10, 20, 50, 100)  # marked on the axis, %
REACH = 3  # the longest interval of an adaptive schedule, in average ones
FIXED = (1, *INTERVALS, REACH * INTERVALS[-1])  # an adaptive schedule costs something between the first and the last


@dataclass(frozen=True)
class Video:
    """A clip in memory, everything known."""

    frames: Sequence[Image]
    truths: Sequence[Truth]
    cuts: int


@dataclass(frozen=True)
class Point:
    """What a schedule costs and reaches."""

    asked: int  # mean interval that was asked for, frames
    interval: float  # mean interval that there was
    accuracy: float  # over all frames, 0..1


def adaptive(laboratory: Laboratory) -> Report:
    """Accuracy over all frames of clips with cuts, by the share of key frames."""
    preset = laboratory.preset
    figures: dict[str, Any] = {}
    picture = Figure(figsize=(10, 4), layout="constrained")
    text = []
    for task, axis in zip(TASKS, picture.subplots(1, len(TASKS)), strict=True):
        run = Run(task, seed=preset.seeds[0])
        source = laboratory.evaluation(task)
        if not isinstance(source, MovingScenes):
            raise ExperimentError(f"the preset {preset.name} has no videos of which every frame is labelled")
        engine = Engine(run_bundle(laboratory, run))
        laboratory.reporter.stage(f"rendering clips for {task}", preset.clips)
        videos = [_video(source, number, laboratory) for number in range(preset.clips)]
        fixed = [_point(laboratory, engine, videos, n, FixedInterval(n)) for n in FIXED]
        placed = [
            _point(laboratory, engine, videos, n, AdaptiveInterval(target=n, maximum=REACH * n)) for n in INTERVALS
        ]
        gains = [100 * (point.accuracy - at_cost(fixed, point.interval)) for point in placed]
        figures[task] = {
            "fixed": [_entry(point) for point in fixed],
            "adaptive": [{**_entry(p), "gain_at_equal_cost": gain} for p, gain in zip(placed, gains, strict=True)],
        }
        for name, points in (("fixed interval", fixed), ("adaptive", placed)):
            shares = [100 / point.interval for point in points]
            axis.plot(shares, [100 * point.accuracy for point in points], marker="o", ms=3, label=name)
        axis.set(xlabel="key frames, % of all", ylabel=f"{METRIC_NAMES[task]}, %", title=task, xscale="log")
        axis.set_xticks(SHARES, labels=map(str, SHARES))
        axis.minorticks_off()
        axis.legend()
        axis.grid(alpha=0.3)
        rows = [
            [
                old.asked,
                f"{100 * old.accuracy:.1f}",
                f"{new.interval:.1f}",
                f"{100 * new.accuracy:.1f}",
                f"{gain:+.1f}",
            ]
            for old, new, gain in zip(fixed[1:], placed, gains, strict=False)
        ]
        columns = [f"interval, {task}", "fixed, %", "adaptive: interval", "adaptive, %", "gain at equal cost"]
        cuts = sum(video.cuts for video in videos)
        frames = sum(len(video.frames) for video in videos)
        text += [
            f"DFF on clips of Moving Scenes ({len(videos)}, {frames} frames with {cuts} cuts in all), run as streams "
            f"through the engine ({engine.backend.name}, {engine.backend.precision}): {METRIC_NAMES[task]} over all "
            "frames. The gain is over the fixed interval of the same average cost (between two of them: interpolated "
            "by the share of key frames), in points. With every frame a key frame it is "
            f"{100 * fixed[0].accuracy:.1f} %.",
            table(columns, rows),
        ]
    return Report("adaptive", "Adaptive key frames against fixed intervals", figures, text, picture)


def at_cost(points: Sequence[Point], interval: float) -> float:
    """Accuracy at a mean interval, interpolated between points by the share of key frames."""
    by_share = sorted((1 / point.interval, point.accuracy) for point in points)
    shares, accuracy = zip(*by_share, strict=True)
    return float(np.interp(1 / interval, shares, accuracy))


def _video(source: MovingScenes, number: int, laboratory: Laboratory) -> Video:
    clip = source.clip(number, laboratory.preset.clip_frames)
    frames = list(clip)
    laboratory.reporter.step()
    return Video([frame.image for frame in frames], [frame.truth for frame in frames], len(clip.cuts))


def _point(laboratory: Laboratory, engine: Engine, videos: Sequence[Video], asked: int, schedule: KeySchedule) -> Point:
    """Run all videos as streams."""
    classes = len(engine.bundle.manifest.classes)
    segments = engine.bundle.manifest.task == "segmentation"
    metric: Metric = SegmentationMetric(classes) if segments else DetectionMetric(classes)
    keys = frames = 0
    laboratory.reporter.stage(f"streaming, {type(schedule).__name__} {asked}", len(videos))
    for video in videos:
        session = StreamSession(engine, schedule)
        for frame, truth in zip(video.frames, video.truths, strict=True):
            result = session.process(frame)
            _count(metric, truth, result)
            keys += result.kind is FrameKind.KEY
            frames += 1
        laboratory.reporter.step()
        laboratory.check_time()
    return Point(asked, frames / keys, metric.value())


def _count(metric: Metric, truth: Truth, result: FrameResult) -> None:
    if isinstance(result.output, LabelMap):
        assert isinstance(metric, SegmentationMetric)
        assert truth.labels is not None
        metric.add(truth.labels, result.output.labels)
        return
    assert isinstance(metric, DetectionMetric)
    assert truth.boxes is not None
    found = result.output
    boxes, scores, labels = (torch.from_numpy(x) for x in (found.xyxy, found.confidence, found.class_id))
    metric.add(truth.boxes, Objects(boxes, scores, labels))


def _entry(point: Point) -> dict[str, float]:
    return {"asked": point.asked, "interval": point.interval, "accuracy": 100 * point.accuracy}
