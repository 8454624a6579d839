"""Agreement of results, on cases made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keywarp.engines import Detections, LabelMap
from keywarp.engines.comparison import BoxAgreement, LabelAgreement, match_objects, open_measure
from keywarp.engines.comparison.objects import overlap
from keywarp.engines.masks import InstanceMasks
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
    assert match_objects(found, expected) == [(0, 0), (4, 2)]
    counts = measure.count(found, expected)
    assert measure.figures(counts) == {"precision": 2 / 5, "recall": 2 / 3}
    assert measure.agreement(counts) == pytest.approx(2 * 2 / (5 + 3))


def test_the_best_overlap_is_matched_first() -> None:
    found = boxes((0, 0, 10, 10, 1), (2, 0, 12, 10, 1))
    assert match_objects(found, boxes((2, 0, 12, 10, 1))) == [(1, 0)]


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


def with_masks(objects: Detections, *rectangles: tuple[int, int, int, int]) -> Detections:
    """Give objects masks that are full rectangles x, y, width, height."""
    corners = np.array([r[:2] for r in rectangles], np.intp).reshape(-1, 2)
    windows = tuple(np.ones((r[3], r[2]), np.bool_) for r in rectangles)
    return replace(objects, masks=InstanceMasks(50, 60, corners, windows))


def test_objects_with_masks_match_by_their_masks() -> None:
    expected = with_masks(boxes((0, 0, 20, 20, 1), (30, 0, 50, 20, 1)), (0, 0, 20, 20), (30, 0, 20, 5))
    found = with_masks(boxes((0, 0, 20, 20, 1), (30, 0, 50, 20, 1)), (0, 0, 20, 11), (30, 9, 20, 5))
    assert match_objects(found, expected) == [(0, 0)]  # IoU 11 / 20; the other two don't touch, though their boxes do
    assert match_objects(replace(found, masks=None), replace(expected, masks=None)) == [(0, 0), (1, 1)]


def test_objects_without_a_pixel_match_by_their_boxes() -> None:
    empty = with_masks(boxes((0, 0, 20, 20, 1)), (0, 0, 0, 0))
    assert match_objects(empty, empty) == [(0, 0)]
    assert match_objects(empty, with_masks(boxes((0, 0, 20, 20, 1)), (0, 0, 20, 20))) == []


def test_objects_with_keypoints_match_by_their_similarity() -> None:
    """The similarity is COCO's: exp(-d^2 / (2 area k^2)), k being twice the deviation, here of a tenth."""
    truth = np.zeros((1, 10, 3), np.float32)
    truth[0, :4, 2] = 0.9  # only these are certain
    one = replace(boxes((0, 0, 100, 100, 1)), keypoints=truth)
    for distance, similarity in ((0, 1.0), (20, np.exp(-400 / (2 * 5300 * 0.2**2))), (30, np.exp(-900 / 424))):
        moved = truth + np.array([distance, 0, 0], np.float32)
        moved[0, 4:, 0] = 1e6
        found = replace(one, keypoints=moved)
        assert overlap(found, one)[0, 0] == pytest.approx(similarity)
        assert match_objects(found, one) == ([(0, 0)] if similarity >= 0.5 else [])
    unsure = replace(one, keypoints=np.zeros((1, 10, 3), np.float32))
    assert overlap(one, unsure)[0, 0] == 1  # the boxes'


def test_less_confident_objects_leave_with_their_masks_and_keypoints() -> None:
    objects = with_masks(boxes((0, 0, 10, 10, 1), (20, 0, 30, 10, 1)), (0, 0, 10, 10), (20, 0, 10, 10))
    objects = replace(objects, confidence=np.array([0.4, 0.9], np.float32), keypoints=np.zeros((2, 3, 3), np.float32))
    left = BoxAgreement(classes=2, confidence=0.5).confident(objects)
    assert left.masks is not None
    assert left.keypoints is not None
    assert left.masks.corners.tolist() == [[20, 0]]
    assert left.keypoints.shape == (1, 3, 3)
