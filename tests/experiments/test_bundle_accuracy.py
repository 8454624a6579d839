"""Accuracy of a bundle through the engine: a tiny network that finds red cells, on a clip whose labels are known."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from keywarp.datasets import Clip, LabelledClip
from keywarp.datasets.samples import Boxes, Snippet, SnippetSource, Truth
from keywarp.engines import MotionSource
from keywarp.experiments.bundle_accuracy import BundleMeasurement, measure_on_data
from keywarp.experiments.errors import ExperimentError
from keywarp.training.console import ConsoleReporter
from keywarp.training.data import Class, TrainingData
from tests.tiny_bundle import tiny_bundle

CELL = 16  # pixels
FRAMES = 6
CLASSES = (("background", (0, 0, 0)), ("red", (255, 0, 0)))
COPY = MotionSource("none")


def moving() -> LabelledClip:
    """Return frames in which a square moves by a cell per frame."""
    frames = np.zeros((FRAMES, 4 * CELL, FRAMES * CELL, 3), np.uint8)
    labels = np.zeros(frames.shape[:3], np.uint8)
    for index in range(FRAMES):
        place = np.s_[index, CELL : 2 * CELL, index * CELL : (index + 1) * CELL]
        frames[place][..., 0] = 255
        labels[place] = 1
    return LabelledClip(Clip("moving", frames, (range(FRAMES),)), labels)


class LastFrameBoxes:
    """The same with boxes, on its last frame only."""

    def __len__(self) -> int:
        return 1

    def snippets(self, length: int) -> Iterator[Snippet]:
        x = (FRAMES - 1) * CELL
        boxes = Boxes(np.array([[x, CELL, x + CELL, 2 * CELL]], np.float32), np.array([1]))
        yield Snippet("moving 5", list(moving().clip.frames[-length:]), Truth(boxes=boxes))


def measure(
    folder: Path, source: SnippetSource, *, detection: bool = False, classes: tuple[Class, ...] = CLASSES
) -> BundleMeasurement:
    bundle = tiny_bundle(folder / "tiny", detection=detection)
    data = TrainingData(classes, moving(), {"moving": source}, "")
    with ConsoleReporter() as reporter:
        return measure_on_data(bundle, data, 2, [COPY], ["fp32"], reporter)


def test_a_clip_is_a_stream_whose_propagated_frames_count_at_their_key_age(tmp_path: Path) -> None:
    found = measure(tmp_path, moving())
    figures = found.accuracy["moving"]["fp32"]
    assert figures.per_frame.mean > 0.8
    fresh, copied = figures.by_motion["none"].by_age
    assert fresh > 0.8
    assert copied < 0.6  # the copied square is a cell behind
    assert found.interval == 2


def test_boxes_count_at_every_key_age_before_their_frame(tmp_path: Path) -> None:
    figures = measure(tmp_path, LastFrameBoxes(), detection=True).accuracy["moving"]["fp32"]
    assert figures.per_frame.metric == "mAP@0.5"
    assert figures.per_frame.mean == pytest.approx(1)
    assert figures.by_motion["none"].by_age == pytest.approx((1, 0))


def test_classes_that_the_data_lack_are_background(tmp_path: Path) -> None:
    figures = measure(tmp_path, moving(), classes=(("background", (0, 0, 0)), ("green", (0, 255, 0))))
    assert (
        figures.accuracy["moving"]["fp32"].per_frame.per_class[1] == 0.0
    )  # no cell is green, and red ones don't count


def test_a_bundle_without_one_of_the_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="doesn't know the data's class 'tram': it has background, green, red"):
        measure(tmp_path, moving(), classes=(("background", (0, 0, 0)), ("tram", (1, 1, 1))))
