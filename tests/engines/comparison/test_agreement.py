"""Agreement of results, on cases made by hand."""

from pathlib import Path

import numpy as np
import pytest

from keywarp.engines import Detections, LabelMap
from keywarp.engines.comparison import BoxAgreement, LabelAgreement, match_boxes, open_measure
from tests.tiny_bundle import tiny_bundle


def labels(*rows: list[int]) -> LabelMap:
    return LabelMap(np.array(rows, np.uint8))


def boxes(*found: tuple[float, float, float, float, int], confidence: float = 0.9) -> Detections:
    """Boxes of 10x10 pixels and more: x1, y1, x2, y2, class."""
    table = np.array(found, np.float32).reshape(-1, 5)
    return Detections(table[:, :4], np.full(len(table), confidence, np.float32), table[:, 4].astype(np.intp))


def test_miou_is_the_mean_of_the_expected_classes() -> None:
    measure = LabelAgreement(classes=4)
    counts = measure.count(labels([0, 0, 1, 1], [0, 0, 0, 3]), labels([0, 0, 0, 1], [0, 0, 1, 1]))
    # Class 0: 4 of 6 pixels in either; class 1: 1 of 4. Class 3 isn't expected, and class 2 is nowhere.
    assert measure.agreement(counts) == pytest.approx((4 / 6 + 1 / 4) / 2)
    assert measure.figures(counts) == {"pixels": 5 / 8}


def test_miou_over_frames_is_that_of_all_their_pixels() -> None:
    measure = LabelAgreement(classes=2)
    good = measure.count(labels([0, 1]), labels([0, 1]))
    bad = measure.count(labels([0, 0, 0, 0]), labels([0, 0, 0, 1]))
    assert measure.agreement(good + bad) == pytest.approx((4 / 5 + 1 / 2) / 2)


def test_a_box_matches_one_box_of_its_class_that_overlaps_by_half() -> None:
    measure = BoxAgreement(classes=3)
    expected = boxes((0, 0, 10, 10, 1), (20, 0, 30, 10, 1), (40, 0, 50, 10, 2))
    found = boxes(
        (0, 0, 10, 9, 1),  # IoU 0.9
        (0, 0, 10, 10, 2),  # another class
        (0, 1, 10, 10, 1),  # IoU 0.9, but its box is taken
        (24, 0, 34, 10, 1),  # IoU 6 / 14
        (40, 0, 50, 20, 2),  # IoU 0.5
    )
    assert match_boxes(found, expected) == [(0, 0), (4, 2)]
    counts = measure.count(found, expected)
    assert measure.figures(counts) == {"precision": 2 / 5, "recall": 2 / 3}
    assert measure.agreement(counts) == pytest.approx(2 * 2 / (5 + 3))


def test_the_best_overlap_is_matched_first() -> None:
    found = boxes((0, 0, 10, 10, 1), (2, 0, 12, 10, 1))
    assert match_boxes(found, boxes((2, 0, 12, 10, 1))) == [(1, 0)]


def test_frames_without_boxes_agree_and_weigh_nothing() -> None:
    measure = BoxAgreement(classes=2)
    empty = measure.count(boxes(), boxes())
    half = measure.count(boxes((0, 0, 10, 10, 1)), boxes((0, 0, 10, 10, 1), (50, 0, 60, 10, 1)))
    assert measure.agreement(empty) == 1
    assert measure.agreement(empty + half) == measure.agreement(half) == pytest.approx(2 / 3)
    assert measure.agreement(measure.count(boxes((0, 0, 10, 10, 1)), boxes())) == 0


def test_boxes_of_less_confidence_do_not_count(tmp_path: Path) -> None:
    manifest = tiny_bundle(tmp_path, detection=True).manifest
    unsure = boxes((0, 0, 10, 10, 1), confidence=0.4)
    sure = boxes((0, 0, 10, 10, 1), confidence=0.6)
    strict, lax = open_measure(manifest, 0.5), open_measure(manifest)
    assert strict.count(unsure, sure).sum(axis=0).tolist() == [0, 0, 1]
    assert lax.count(unsure, sure).sum(axis=0).tolist() == [1, 1, 1]
