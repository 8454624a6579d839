import numpy as np

from keywarp.datasets import IGNORE, Image, ShapePrior, TeacherClass, TeacherDetection, VotingRule, evidence, label_clip
from keywarp.datasets.labelling import Evidence, decide
from tests.datasets.synthetic import moving_square, textured

VOTE = VotingRule(accept=(0.4,), offsets=(-2, -1, 0, 1, 2))
CUT_OUT = ShapePrior(2.0, (0.5, 0.5))
CLASSES = (
    TeacherClass("background", (0, 0, 0), (), CUT_OUT),
    TeacherClass("thing", (255, 0, 0), (7,), CUT_OUT),
    TeacherClass("box", (0, 255, 0), (8,), ShapePrior(4.0, None)),
)


def test_grabcut_finds_an_object_inside_a_loose_box() -> None:
    frame = (textured(80, 100) // 4).astype(np.uint8)
    frame[25:55, 40:60] = (250, 240, 230)
    maps = evidence(frame, [TeacherDetection(7, 0.8, (34, 20, 66, 60))], CLASSES)
    found = maps[0] > 0.4
    truth = np.zeros((80, 100), bool)
    truth[25:55, 40:60] = True
    assert (found & truth).sum() / (found | truth).sum() > 0.85
    assert np.isclose(maps.max(), 0.8)
    assert not maps[1].any()


def test_a_class_without_a_core_keeps_the_rounded_box() -> None:
    maps = evidence(textured(64, 64), [TeacherDetection(8, 0.5, (10, 10, 50, 50))], CLASSES)
    assert maps[1, 30, 30] == 0.5
    assert maps[1, 11, 11] == 0  # a corner
    assert not maps[1, 52:].any()


def test_a_box_over_the_whole_frame_and_one_at_its_edge_work() -> None:
    frame = textured(40, 60)
    assert evidence(frame, [TeacherDetection(7, 0.5, (0, 0, 60, 40))], CLASSES)[0].any()
    assert evidence(frame, [TeacherDetection(7, 0.5, (55, 30, 60, 40))], CLASSES)[0].any()


def test_an_object_that_the_teacher_misses_once_is_still_labelled() -> None:
    source = moving_square(frames=9, step=3)

    def forgetful(frame: Image) -> Evidence:
        index = next(i for i, known in enumerate(source.clip.frames) if np.array_equal(known, frame))
        return np.asarray(source.labels[index] * (0.0 if index == 4 else 0.9), np.float32)[None]

    labels = label_clip(source.clip, forgetful, VOTE)
    truth = source.labels[4] == 1
    assert (labels[4][truth] == 1).mean() > 0.8
    assert (labels[4][~truth] == 1).mean() < 0.05


def test_an_object_detected_only_once_is_not_labelled() -> None:
    source = moving_square(frames=9, step=0)
    calls = 0

    def imaginative(frame: Image) -> Evidence:
        nonlocal calls
        calls += 1
        return np.full((1, *frame.shape[:2]), 0.7 if calls == 5 else 0.0, np.float32)

    assert not label_clip(source.clip, imaginative, VOTE).any()
    assert calls == 9  # once a frame


def test_evidence_does_not_cross_a_cut() -> None:
    source = moving_square(frames=8, step=0, cut=4)
    calls = 0

    def first_shot_only(frame: Image) -> Evidence:
        nonlocal calls
        calls += 1
        return np.full((1, *frame.shape[:2]), 0.9 if calls <= 4 else 0.0, np.float32)

    labels = label_clip(source.clip, first_shot_only, VOTE)
    assert (labels[:4] == 1).all()
    assert not labels[4:].any()


def test_between_accepted_and_rejected_a_pixel_is_ignored() -> None:
    mean = np.array([[[0.1, 0.3, 0.6]], [[0.0, 0.0, 0.5]]], np.float32)
    assert decide(mean, VotingRule(accept=(0.4, 0.2), reject=0.5)).tolist() == [[0, IGNORE, 1]]
