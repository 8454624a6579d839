"""Accuracy of boxes against labels: by hand on tiny cases, and against COCO's own code on random ones."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from keywarp.experiments.accuracy import Accuracy, Boxes, Judged, Truth, judge, measure

SIDE = 100  # of a random frame, pixels


def boxes(*corners: tuple[float, float, float, float]) -> Boxes:
    return np.array(corners, np.float32).reshape(-1, 4)


def judged(found: Boxes, truth: Truth, *confidence: float) -> Judged:
    return judge(found, np.array(confidence or [0.9] * len(found)), truth)


def test_a_detection_is_right_from_an_iou_of_a_half() -> None:
    truth = Truth(boxes((0, 0, 10, 10)))
    assert judged(boxes((0, 0, 10, 5)), truth).right.tolist() == [True]
    assert judged(boxes((0, 0, 10, 4.9)), truth).right.tolist() == [False]


def test_a_label_is_found_once_by_the_most_confident_detection() -> None:
    truth = Truth(boxes((0, 0, 10, 10)))
    one = judged(boxes((0, 0, 10, 10), (0, 0, 10, 8)), truth, 0.5, 0.6)
    assert one.position.tolist() == [1, 0]
    assert one.label.tolist() == [0, -1]
    assert measure([one], 0.4) == Accuracy(precision=0.5, recall=1.0, f1=2 / 3, ap=1.0, labels=1)


def test_a_detection_takes_the_free_label_that_it_overlaps_most() -> None:
    truth = Truth(boxes((0, 0, 10, 10), (2, 0, 12, 10)))
    assert judged(boxes((2, 0, 12, 10), (1.5, 0, 11.5, 10)), truth).label.tolist() == [1, 0]


def test_nothing_counts_in_a_region_to_ignore_but_what_finds_a_label() -> None:
    truth = Truth(boxes((0, 0, 10, 10)), boxes((0, 0, 50, 50)))
    one = judged(boxes((0, 0, 10, 10), (30, 30, 40, 40), (45, 0, 55, 10), (46, 0, 56, 10)), truth)
    assert one.position.tolist() == [0, 3]  # the third lies in it by half, the fourth by less
    assert one.right.tolist() == [True, False]


def test_frames_without_labels_or_detections() -> None:
    nothing, empty = Truth(boxes()), boxes()
    assert measure([judged(empty, nothing)], 0.4) == Accuracy(1.0, 1.0, 1.0, 1.0, 0)
    assert measure([judged(empty, Truth(boxes((0, 0, 9, 9))))], 0.4) == Accuracy(1.0, 0.0, 0.0, 0.0, 1)
    wrong = measure([judged(boxes((0, 0, 9, 9)), nothing)], 0.4)
    assert (wrong.precision, wrong.recall, wrong.f1) == (0.0, 1.0, 0.0)


def test_only_average_precision_looks_below_the_threshold() -> None:
    truth = Truth(boxes((0, 0, 10, 10), (20, 0, 30, 10)))
    one = judged(truth.boxes, truth, 0.9, 0.2)
    assert measure([one], 0.4) == Accuracy(precision=1.0, recall=0.5, f1=2 / 3, ap=1.0, labels=2)


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_coco(seed: int) -> None:
    random = np.random.default_rng(seed)
    frames = [_random_frame(random) for _ in range(12)]
    ours = measure([judge(found, confidence, truth) for found, confidence, truth in frames], 0.4)
    assert 0.1 < ours.ap < 0.95
    assert ours.ap == pytest.approx(_coco(frames), abs=1e-6)


def _random_frame(random: np.random.Generator) -> tuple[Boxes, Any, Truth]:
    """Return detections around some labels and elsewhere, and regions to ignore around others."""

    def draw(count: int) -> Boxes:
        corners = random.uniform(0, SIDE - 30, (count, 2))
        return np.concatenate([corners, corners + random.uniform(10, 30, (count, 2))], axis=1).astype(np.float32)

    labels, ignored = draw(5), draw(2)
    near = np.concatenate([labels, ignored])[random.permutation(7)[:5]] + random.uniform(-5, 5, (5, 4))
    found = np.concatenate([near, draw(4)]).astype(np.float32)
    return found, random.uniform(0.05, 1, len(found)), Truth(labels, ignored)


def _coco(frames: list[tuple[Boxes, Any, Truth]]) -> float:
    labels: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image, (detected, confidence, truth) in enumerate(frames, 1):
        for box in [*truth.boxes, *truth.ignored]:
            crowd = int(len([one for one in labels if one["image_id"] == image]) >= len(truth.boxes))
            labels.append({"id": len(labels) + 1, "image_id": image, "iscrowd": crowd, **_coco_box(box)})
        found += [
            {"image_id": image, "score": float(score), **_coco_box(box)}
            for box, score in zip(detected, confidence, strict=True)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": image} for image in range(1, len(frames) + 1)],
            "categories": [{"id": 1}],
            "annotations": labels,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1])  # at an IoU of 0.5


def _coco_box(box: Boxes) -> dict[str, Any]:
    x1, y1, x2, y2 = map(float, box)
    return {"category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
