"""Objects keep their ids from frame to frame."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines import Detections, FrameKind, FrameResult, KeyReason, LabelMap
from keywarp.engines.tracks import Tracker
from keywarp.engines.tracks.motion import displacements

HEIGHT, WIDTH, CELL = 240, 320, 16
PERSON, CAR = 1, 2

Box = Sequence[float]


def found(
    index: int,
    *boxes: Box,
    kind: int = PERSON,
    confidence: float = 0.9,
    key_age: int = 0,
    flow: NDArray[np.float32] | None = None,
    reason: KeyReason | None = None,
) -> FrameResult:
    """Return a result with these boxes."""
    count = len(boxes)
    return FrameResult(
        index=index,
        kind=FrameKind.PROPAGATED if key_age else FrameKind.KEY,
        key_age=key_age,
        height=HEIGHT,
        width=WIDTH,
        output=Detections(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.full(count, confidence, np.float32),
            np.full(count, kind, np.intp),
        ),
        inference=0.0,
        postprocess=0.0,
        reason=reason,
        flow=flow,
    )


def ids(tracker: Tracker, result: FrameResult, timestamp: float | None = None) -> list[int]:
    track_id = tracker.update(result, timestamp).detections.track_id
    assert track_id is not None
    return [*map(int, track_id)]


def still(dx: float = 0.0) -> NDArray[np.float32]:
    """Return the flow of a picture whose content moved by `dx` pixels since the key frame."""
    flow = np.zeros((2, HEIGHT // CELL, WIDTH // CELL), np.float32)
    flow[0] = -dx / CELL
    return flow


@pytest.fixture
def tracker() -> Tracker:
    return Tracker(0.3)


def test_an_object_gets_an_id_on_its_second_frame_and_keeps_it(tracker: Tracker) -> None:
    seen = [ids(tracker, found(i, (10 + 5 * i, 20, 40 + 5 * i, 100))) for i in range(6)]
    assert seen == [[-1], [1], [1], [1], [1], [1]]


def test_objects_that_cross_keep_their_ids(tracker: Tracker) -> None:
    for i in range(40):
        right, left = (10 + 6 * i, 20, 40 + 6 * i, 100), (250 - 6 * i, 24, 280 - 6 * i, 104)
        order = [right, left] if i % 2 else [left, right]  # the order of detections means nothing
        seen = ids(tracker, found(i, *order))
        if i == 1:
            first = dict(zip(("right", "left"), seen, strict=True))
    assert seen == [first["right"], first["left"]]


def test_a_hidden_object_keeps_its_id_until_it_is_forgotten() -> None:
    for hidden, same in ((10, True), (11, False)):
        tracker = Tracker(0.3, patience=10)
        for i in range(10):
            ids(tracker, found(i, (50, 20, 80, 100)))
        for i in range(10, 10 + hidden):
            ids(tracker, found(i))
        later = [ids(tracker, found(10 + hidden + i, (50, 20, 80, 100)))[0] for i in range(2)]
        assert later == ([1, 1] if same else [-1, 2])


def test_objects_of_different_classes_are_never_the_same(tracker: Tracker) -> None:
    for i in range(3):
        ids(tracker, found(i, (50, 20, 80, 100)))
    assert ids(tracker, found(3, (50, 20, 80, 100), kind=CAR)) == [-1]


def test_an_uncertain_detection_continues_a_track_but_begins_none(tracker: Tracker) -> None:
    assert [ids(tracker, found(i, (50, 20, 80, 100), confidence=0.4))[0] for i in range(3)] == [-1, -1, -1]
    for i in range(3, 6):
        ids(tracker, found(i, (50, 20, 80, 100)))
    assert ids(tracker, found(6, (50, 20, 80, 100), confidence=0.4)) == [1]


@pytest.mark.parametrize("reason", [KeyReason.START, KeyReason.SIZE, KeyReason.CUT])
def test_a_new_scene_has_new_ids(tracker: Tracker, reason: KeyReason) -> None:
    for i in range(3):
        ids(tracker, found(i, (50, 20, 80, 100)))
    assert [ids(tracker, found(3 + i, (50, 20, 80, 100), reason=reason if i == 0 else None)) for i in range(2)] == [
        [-1],
        [2],
    ]


@pytest.mark.parametrize(("timestamp", "seen"), [(0.9, [1]), (3.0, [-1]), (-5.0, [-1]), (None, [-1])])
def test_a_gap_ends_tracks_unless_it_is_known_to_be_short(
    tracker: Tracker, timestamp: float | None, seen: list[int]
) -> None:
    for i in range(3):
        ids(tracker, found(i, (50, 20, 80, 100)), 0.1 * i)
    assert ids(tracker, found(3, (50, 20, 80, 100), reason=KeyReason.GAP), timestamp) == seen


def test_boxes_move_along_the_flow() -> None:
    """A jolt of the camera moves everything by more than a box: without the flow, nothing overlaps."""
    for flow, same in ((True, True), (False, False)):
        tracker = Tracker(0.3, flow=flow)
        for i in range(5):
            ids(tracker, found(i, (50, 20, 80, 100), key_age=i, flow=still()))
        seen = ids(tracker, found(5, (130, 20, 160, 100), key_age=5, flow=still(80)))
        assert (seen == [1]) == same
        if flow:  # and what was hidden meanwhile moved, too
            assert ids(tracker, found(6, (130, 20, 160, 100), key_age=6, flow=still(80))) == [1]


def test_dropped_frames_count_as_time(tracker: Tracker) -> None:
    for i in range(8):
        ids(tracker, found(i, (10 + 8 * i, 20, 40 + 8 * i, 100)))
    assert ids(tracker, found(15, (130, 20, 160, 100))) == [1]  # eight steps further


def test_results_of_other_tasks_are_left_alone(tracker: Tracker) -> None:
    result = FrameResult(0, FrameKind.KEY, 0, 4, 4, LabelMap(np.zeros((4, 4), np.uint8)), 0.0, 0.0)
    assert tracker.update(result) is result


def test_a_displacement_is_the_difference_of_two_flows_to_the_key_frame() -> None:
    boxes = np.array([[64.0, 64, 128, 160], [300, 200, 340, 250]])
    moved, spread = displacements(boxes, still(24), still(40), HEIGHT, WIDTH)
    assert moved == pytest.approx(np.array([[16.0, 0], [16, 0]]))
    assert spread == pytest.approx(0)


def test_points_that_disagree_are_a_wide_spread() -> None:
    flow = still()
    flow[0, :, 5::2] = 3.0
    _, spread = displacements(np.array([[64.0, 64, 160, 160]]), None, flow, HEIGHT, WIDTH)
    assert spread[0, 0] > 5
