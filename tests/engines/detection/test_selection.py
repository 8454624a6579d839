"""Scores are selected as array operations would, only faster."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keywarp.engines.detection.selection import select, within
from keywarp.engines.manifest import DenseDetection

SCORES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 6), st.integers(1, 5)),
    elements=st.floats(-0.5, 1.5, width=32)
    | st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0, float("nan"), float("inf"), -float("inf")]),
)


@settings(deadline=None)  # compiles when it is first called
@given(scores=SCORES, threshold=st.sampled_from([0.0, 0.25, 0.5, 1.0]), seed=st.integers(0, 99))
def test_certain_scores_are_found_in_the_order_of_the_classes(scores: np.ndarray, threshold: float, seed: int) -> None:
    filled = np.random.default_rng(seed).random(len(scores)) < 0.7
    boxes = np.zeros((len(scores), 4), np.float32)
    boxes[:, 0] = np.arange(len(scores)) * 4
    boxes[:, 2:] = boxes[:, :2] + np.where(filled, 2, 0)[:, np.newaxis]
    classes, rows = np.nonzero(((scores[:, 1:] >= np.float32(threshold)) & filled[:, np.newaxis]).T)
    order = np.argsort(-(scores[rows, classes + 1] + np.float32(0)), kind="stable")
    found = select(boxes, scores, DenseDetection(threshold=threshold, iou=1), candidates=1000)
    np.testing.assert_array_equal(found.class_id, classes[order] + 1)
    np.testing.assert_array_equal(found.xyxy, boxes[rows[order]])
    np.testing.assert_array_equal(found.confidence, scores[rows, classes + 1][order])


def test_scores_may_be_strided() -> None:
    scores = np.zeros((3, 2, 8), np.float32)
    scores[1, 0, 4] = 0.9
    boxes = np.tile(np.array([0, 0, 2, 2], np.float32), (3, 1))
    found = select(boxes, scores[:, 0, ::2], DenseDetection(), candidates=10)
    assert found.class_id.tolist() == [2]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, True), (1.0, True), (1.01, True), (1.02, False), (-0.01, False), (float("nan"), False), (np.inf, False)],
)
def test_scores_are_checked_against_the_limits(value: float, expected: bool) -> None:
    scores = np.full((4, 5), 0.5, np.float32)
    scores[2, 3] = value
    assert within(scores, 1.01) is expected
    assert within(scores[:0], 1.01)
