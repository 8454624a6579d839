"""Measures how well objects keep their ids, with the flow of propagated frames and without it.

A stream for each phase of the key frames runs over labelled frames of real video, from WARM_UP frames before them. The
video comes from a package, which is fetched when missing. See bench/labels/README.md about the labels.

Example: python bench/tracks.py models/street-detect --intervals 1 5 10 --every 1 3
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import cv2
import lap
import numpy as np
from numpy.typing import NDArray

from keywarp.clips.opening import open_clip
from keywarp.datasets import DataError
from keywarp.datasets.packages import PackageFile, fetch
from keywarp.engines import Engine, EngineError, FixedInterval, FrameResult, Precision, StreamSession, load_bundle
from keywarp.engines.tracks import Tracker
from keywarp.engines.tracks.tracker import iou
from keywarp.experiments.report import machine, table

LABELS = Path(__file__).parent / "labels" / "tracks.json"
CACHE = Path(__file__).parents[1] / ".cache" / "keywarp" / "packages"
WARM_UP = 20  # frames before the labelled ones, so that tracks don't begin with them
RIGHT = 0.5  # least IoU of a box with a label
SWING = 40  # frames in which the window swings there and back

Boxes = dict[int, NDArray[np.float64]]  # by track


@dataclass(frozen=True)
class Score:
    """How well ids are kept, as means over the phases of the key frames."""

    idf1: float  # 0..1
    switches: float  # how often a person has another id than before
    ids: float  # given to boxes of persons
    missed: float  # boxes
    wrong: float  # boxes


@dataclass(frozen=True)
class Figures:
    """One condition."""

    every: int  # frames from one processed frame to the next
    swing: int  # pixels that the camera swings to each side
    interval: int
    with_flow: Score
    without_flow: Score
    milliseconds: tuple[float, float]  # that tracking takes a frame, with and without the flow


class Labels:
    """Hand-drawn tracks, with the boxes between labelled frames interpolated."""

    def __init__(self, file: Path) -> None:
        content: dict[str, Any] = json.loads(file.read_text())
        video = content["video"]
        self.video = PackageFile(video["ecosystem"], video["package"], video["member"], video["sha256"])
        self.category = str(content["category"])
        self.first, self.last = int(content["first"]), int(content["last"])
        self._tracks: dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]] = {
            track["id"]: (np.array([int(f) for f in track["boxes"]]), np.array([*track["boxes"].values()], float))
            for track in content["tracks"]
        }

    def at(self, frame: int) -> Boxes:
        """Return the boxes on a frame."""
        return {
            number: np.array([np.interp(frame, frames, side) for side in boxes.T])
            for number, (frames, boxes) in self._tracks.items()
            if frames[0] <= frame <= frames[-1]
        }


def main() -> None:
    """Print the table or the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder of a detector's bundle")
    parser.add_argument("--intervals", nargs="+", type=int, default=[1, 5, 10], help="key intervals, frames")
    parser.add_argument("--every", nargs="+", type=int, default=[1], help="process every N-th frame of the video")
    parser.add_argument("--swing", nargs="+", type=int, default=[0], help="pixels by which the camera is made to swing")
    parser.add_argument(
        "--precision", default="auto", choices=get_args(Precision), help="of the engine (default: auto)"
    )
    parser.add_argument("--labels", type=Path, default=LABELS, help="file of tracks")
    parser.add_argument("--packages", type=Path, default=CACHE, help="folder that keeps fetched packages")
    parser.add_argument("--sheet", type=Path, help="write a picture of tracked frames, of the last condition")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    try:
        labels = Labels(arguments.labels)
        clip = open_clip(str(fetch(labels.video, arguments.packages)), (0, None))
        frames = {
            index: frame.image
            for index, frame in zip(range(labels.last + 1), clip.frames(), strict=False)
            if index >= labels.first - WARM_UP
        }
        engine = Engine(load_bundle(arguments.bundle), precision=arguments.precision)
        bench = Bench(engine, labels, frames)
        figures = [
            bench.measure(interval, every, swing)
            for every in arguments.every
            for swing in arguments.swing
            for interval in arguments.intervals
        ]
    except (DataError, EngineError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    if arguments.sheet:
        arguments.sheet.write_bytes(bench.sheet)
    if arguments.json:
        print(json.dumps({"machine": machine(), "figures": [asdict(one) for one in figures]}))
        return
    print(f"{engine.bundle.name}, {engine.motion}, {engine.backend.name} {engine.backend.precision}, {machine()}\n")
    print(
        table(
            ["every", "swing", "interval", "IDF1", "without", "switches", "without", "ids", "without", "ms", "without"],
            [
                [
                    f"{one.every}",
                    f"{one.swing}",
                    f"{one.interval}",
                    *(f"{score.idf1:.3f}" for score in (one.with_flow, one.without_flow)),
                    *(f"{score.switches:.1f}" for score in (one.with_flow, one.without_flow)),
                    *(f"{score.ids:.1f}" for score in (one.with_flow, one.without_flow)),
                    *(f"{milliseconds:.2f}" for milliseconds in one.milliseconds),
                ]
                for one in figures
            ],
        )
    )


class Bench:
    """Runs streams over the labelled frames."""

    def __init__(self, engine: Engine, labels: Labels, frames: dict[int, NDArray[np.uint8]]) -> None:
        self._engine, self._labels, self._frames = engine, labels, frames
        self._class_id = next(c.id for c in engine.bundle.manifest.classes if c.name == labels.category)
        detection = engine.bundle.manifest.detection
        if detection is None:
            raise ValueError(f"{engine.bundle.name} detects no objects: give a detector")
        self._threshold = detection.threshold
        self.sheet = b""

    def measure(self, interval: int, every: int, swing: int) -> Figures:
        """Measure one condition, with a stream for each phase of its key frames."""
        phases = [[*self._run(interval, every, swing, phase)] for phase in range(interval)]
        scores, costs = [], []
        for flow in (True, False):
            tracked, spent, count = [], 0.0, 0
            for phase in phases:
                tracker = Tracker(self._threshold, flow=flow)
                found = {}
                for frame, result in phase:
                    started = time.perf_counter()
                    result = tracker.update(result)
                    spent, count = spent + time.perf_counter() - started, count + 1
                    if frame >= self._labels.first:
                        found[frame] = self._tracked(result)
                tracked.append(found)
            truths = [{frame: self._truth(frame, swing) for frame in found} for found in tracked]
            each = [score(truth, found) for truth, found in zip(truths, tracked, strict=True)]
            scores.append(Score(*np.mean([[*asdict(one).values()] for one in each], axis=0).tolist()))
            costs.append(1000 * spent / count)
            if flow:
                self.sheet = self._draw(tracked[0], swing)
        return Figures(every, swing, interval, scores[0], scores[1], (costs[0], costs[1]))

    def _run(self, interval: int, every: int, swing: int, phase: int) -> Iterator[tuple[int, FrameResult]]:
        session = StreamSession(self._engine, FixedInterval(interval))
        for number, frame in enumerate(sorted(self._frames)[phase * every :: every]):
            yield frame, session.process(self._view(frame, swing), index=number)

    def _offset(self, frame: int, swing: int) -> int:
        """Return the left side of the window through which a frame is seen, in pixels."""
        return round(swing * (1 + float(np.sin(2 * np.pi * frame / SWING))))

    def _view(self, frame: int, swing: int) -> NDArray[np.uint8]:
        image = self._frames[frame]
        left = self._offset(frame, swing)
        return np.ascontiguousarray(image[:, left : image.shape[1] - 2 * swing + left])

    def _truth(self, frame: int, swing: int) -> Boxes:
        left, width = self._offset(frame, swing), self._frames[frame].shape[1] - 2 * swing
        moved = {number: box - [left, 0, left, 0] for number, box in self._labels.at(frame).items()}
        inside = {number: np.clip(box, 0, [width, np.inf, width, np.inf]) for number, box in moved.items()}
        return {
            number: box
            for number, box in inside.items()
            if box[2] - box[0] >= (moved[number][2] - moved[number][0]) / 2
        }

    def _tracked(self, result: FrameResult) -> Boxes:
        found = result.detections
        assert found.track_id is not None
        chosen = np.flatnonzero((found.class_id == self._class_id) & (found.track_id > 0))
        return {int(found.track_id[i]): found.xyxy[i].astype(float) for i in chosen}

    def _draw(self, tracked: dict[int, Boxes], swing: int) -> bytes:
        frames = sorted(tracked)
        pictures = []
        for frame in (frames[round(i * (len(frames) - 1) / 8)] for i in range(9)):
            picture = self._view(frame, swing).copy()
            for number, box in tracked[frame].items():
                color = tuple(int(value) for value in np.random.default_rng(number).integers(80, 256, 3))
                x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
                cv2.rectangle(picture, (x1, y1), (x2, y2), color, 2)
                cv2.putText(picture, f"#{number}", (x1, y1 - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.6, color, 2)
            cv2.putText(picture, f"{frame}", (6, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2)
            pictures.append(picture)
        grid = np.vstack([np.hstack(pictures[row : row + 3]) for row in (0, 3, 6)])
        done, png = cv2.imencode(".png", grid[..., ::-1])
        assert done
        return png.tobytes()


def score(truth: dict[int, Boxes], found: dict[int, Boxes]) -> Score:
    """Score tracks by IDF1 (Ristani et al., 2016) and by CLEAR MOT's switches.

    Args:
        truth: The labelled boxes by frame and person.
        found: The boxes by frame and id.
    """
    together: dict[tuple[int, int], int] = defaultdict(int)  # frames on which a person and an id are at one place
    last: dict[int, int] = {}  # the id of each person
    switches = missed = wrong = 0
    for frame, persons in truth.items():
        ids = found[frame]
        names, numbers = [*persons], [*ids]
        alike = iou(_stack(persons), _stack(ids))
        alike[alike < RIGHT] = 0
        for row, column in np.argwhere(alike > 0):
            together[names[row], numbers[column]] += 1
        for row, name in enumerate(names):  # a person keeps its id if it can
            if last.get(name) in ids:
                column = numbers.index(last[name])
                alike[row, column] += 10 * (alike[row, column] > 0)
        pairs = [(row, column) for row, column in _pairs(alike) if alike[row, column] > 0]
        missed, wrong = missed + len(names) - len(pairs), wrong + len(numbers) - len(pairs)
        for row, column in pairs:
            switches += last.get(names[row], numbers[column]) != numbers[column]
            last[names[row]] = numbers[column]
    people = sorted({name for persons in truth.values() for name in persons})
    given = sorted({number for ids in found.values() for number in ids})
    shared = np.array([[together[name, number] for number in given] for name in people], float)
    right = sum(shared[row, column] for row, column in _pairs(shared))
    boxes = sum(map(len, truth.values())) + sum(map(len, found.values()))
    return Score(2 * right / max(1, boxes), switches, len(given), missed, wrong)


def _stack(boxes: Boxes) -> NDArray[np.float64]:
    return np.array([*boxes.values()]).reshape(-1, 4)


def _pairs(alike: NDArray[np.float64]) -> Sequence[tuple[int, int]]:
    """Return the pairs that are most alike in all."""
    if 0 in alike.shape:
        return []
    columns, _ = lap.lapjv(-alike, extend_cost=True, return_cost=False)
    return [(row, int(column)) for row, column in enumerate(columns) if column >= 0]


if __name__ == "__main__":
    main()
