"""Labels and results on labelled frames: a tiny detector that finds every red cell, on frames of squares."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.labelled import LABELS
from keywarp.datasets import DataError
from keywarp.engines import Engine
from keywarp.engines.comparison import Clip, ClipFrame
from keywarp.engines.motion import MotionSource
from keywarp.experiments.accuracy import Truth
from keywarp.experiments.labelled import (
    FLOOR,
    LabelledVideo,
    at_interval,
    by_age,
    detect,
    difference,
    judge_found,
    prepared,
    read_labels,
)
from tests.tiny_bundle import tiny_bundle

CELL = 16  # pixels
FRAMES = 12


def square(frame: int) -> NDArray[np.float32]:
    """Return the box of the red square, which moves by a cell per frame. A detected box is a pixel larger."""
    return np.array([[frame * CELL, 2 * CELL, (frame + 1) * CELL, 3 * CELL]], np.float32)


def moving() -> Iterator[ClipFrame]:
    for index in range(FRAMES):
        image = np.zeros((64, FRAMES * CELL, 3), np.uint8)
        x1, y1, x2, y2 = square(index)[0].astype(int)
        image[y1:y2, x1:x2, 0] = 255
        yield ClipFrame(image, index, index / 10)


@pytest.fixture(scope="module")
def video() -> LabelledVideo:
    labels = read_labels(LABELS)[0]
    return LabelledVideo("moving", labels.source, {frame: {"red": Truth(square(frame))} for frame in (1, 7, 9)})


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    bundle = tiny_bundle(tmp_path_factory.mktemp("models") / "tiny", detection=True)
    engine = Engine(prepared(bundle), motion=MotionSource.parse("none"))
    yield engine
    engine.close()


def test_each_labelled_frame_is_seen_at_every_key_age(engine: Engine, video: LabelledVideo) -> None:
    done: list[int] = []
    found = list(detect(engine, Clip("moving", moving), video, 3, done.append))
    assert [(one.frame, one.age) for one in found] == [
        *((1, age) for age in (1, 0)),  # there are no frames before the first
        *((7, age) for age in (3, 2, 1, 0)),
        *((9, age) for age in (3, 2, 1, 0)),
    ]
    for one in found:  # results that are copied are where the square was on the key frame
        assert one.detections.xyxy[0, 0] == pytest.approx(square(one.frame - one.age)[0, 0], abs=1.5)
    assert done == list(range(10))  # nothing is decoded after the last labelled frame


def test_copied_results_are_right_on_the_key_frame_only(engine: Engine, video: LabelledVideo) -> None:
    judged = {
        (one.frame, one.age): judge_found(one, video, "red", 1)
        for one in detect(engine, Clip("moving", moving), video, 2)
    }
    assert at_interval(judged, 1, 0.4).f1 == 1.0
    assert at_interval(judged, 2, 0.4).f1 == 0.5
    assert [one.f1 for one in by_age(judged, 0.4)] == [1.0, 0.0, 0.0]
    shift = difference(judged, 2, 0.4)
    assert shift.f1 == shift.low == shift.high == -0.5


def test_a_prepared_bundle_is_less_certain_and_larger(tmp_path: Path) -> None:
    bundle = prepared(tiny_bundle(tmp_path / "tiny", detection=True, short_side=64, long_side=256), 96)
    assert bundle.manifest.detection is not None
    assert bundle.manifest.detection.threshold == FLOOR
    assert (bundle.manifest.image.short_side, bundle.manifest.image.long_side) == (96, 384)
    with pytest.raises(ValueError, match="is no detector"):
        prepared(tiny_bundle(tmp_path / "other"))


def test_the_labels_lie_inside_their_frames() -> None:
    videos = read_labels(LABELS)
    assert {video.name: len(video.frames) for video in videos} == {
        "vtest.avi": 30,
        "bikes.mp4": 8,
        "carphone_pristine.mp4": 2,
    }
    assert {frame % 10 for frame in videos[0].frames} == set(range(10))
    for name, sizes in (("vtest.avi", (768, 576)), ("bikes.mp4", (640, 272)), ("carphone_pristine.mp4", (176, 144))):
        video = next(video for video in videos if video.name == name)
        for frame in video.frames.values():
            for truth in frame.values():
                for some in (truth.boxes, truth.ignored):
                    assert (some[:, :2] >= 0).all()
                    assert (some[:, 2:] <= sizes).all()
                    assert (some[:, :2] < some[:, 2:]).all()
    persons = [frame["person"] for frame in videos[0].frames.values()]
    assert sum(len(truth.boxes) for truth in persons) == 224


def test_a_file_that_holds_no_labels_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    with pytest.raises(DataError, match="can't read the labels"):
        read_labels(file)
    file.write_text(json.dumps({"images": [], "categories": [], "annotations": []}))
    with pytest.raises(DataError, match="isn't a COCO file with videos: videos: Field required"):
        read_labels(file)
    content = json.loads(LABELS.read_text())
    content["annotations"][0]["image_id"] = 0
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="annotation 1 is of an image or a category that isn't listed"):
        read_labels(file)


def test_a_difference_may_be_that_of_another_run_at_the_same_interval(engine: Engine, video: LabelledVideo) -> None:
    judged = {
        (one.frame, one.age): judge_found(one, video, "red", 1)
        for one in detect(engine, Clip("moving", moving), video, 2)
    }
    fresh = {(frame, age): judged[frame, 0] for frame, age in judged}
    assert difference(judged, 2, 0.4, judged).f1 == 0.0
    assert difference(judged, 2, 0.4, fresh).f1 == -0.5
