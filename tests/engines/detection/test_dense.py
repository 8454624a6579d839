import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.ops import nms

from keywarp.engines.detection import DenseDetector
from keywarp.engines.errors import BundleError
from keywarp.engines.manifest import DenseDetection

Array = NDArray[np.float32]
HEIGHT, WIDTH, CLASSES = 200, 300, 4


def random_outputs(count: int) -> dict[str, Array]:
    random = np.random.default_rng(count)
    centre, size = random.uniform(0, (WIDTH, HEIGHT), (count, 2)), random.uniform(10, 150, (count, 2))
    boxes = np.concatenate((centre - size / 2, centre + size / 2), axis=1)
    powers = np.exp(3 * random.normal(size=(count, CLASSES)))
    scores = powers / powers.sum(axis=1, keepdims=True)
    return {"boxes": boxes[np.newaxis].astype(np.float32), "scores": scores[np.newaxis].astype(np.float32)}


def test_each_class_is_suppressed_as_by_torchvision_and_the_best_are_reported() -> None:
    settings = DenseDetection(threshold=0.2, iou=0.4, candidates=10_000, limit=50)
    outputs = random_outputs(500)
    boxes, scores = (torch.from_numpy(outputs[name][0]) for name in ("boxes", "scores"))
    boxes = torch.minimum(boxes.clamp(min=0), torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT]))
    expected = []
    for label in range(1, CLASSES):
        above = torch.nonzero(scores[:, label] >= 0.2).squeeze(1)
        kept = above[nms(boxes[above], scores[above, label], 0.4)]
        expected += [(float(scores[n, label]), label, boxes[n].tolist()) for n in kept]
    expected.sort(key=lambda found: -found[0])
    found = DenseDetector(settings, CLASSES, HEIGHT, WIDTH).detect(outputs)
    assert len(expected) > 50
    assert found.confidence.tolist() == [score for score, _, _ in expected[:50]]
    assert found.class_id.tolist() == [label for _, label, _ in expected[:50]]
    assert found.xyxy.tolist() == [box for _, _, box in expected[:50]]


def test_only_the_best_candidates_enter_the_suppression() -> None:
    outputs = random_outputs(500)
    best = float(np.sort(outputs["scores"][0, :, 1:].ravel())[-7])
    found = DenseDetector(DenseDetection(iou=1, candidates=7), CLASSES, HEIGHT, WIDTH).detect(outputs)
    assert len(found.confidence) == 7
    assert found.confidence.min() == best


def test_the_background_and_boxes_outside_are_not_reported_and_the_rest_clipped() -> None:
    boxes = np.array([[10, 10, 50, 50], [-40, 20, -10, 90], [280, 150, 400, 400], [100, 50, 90, 60]], np.float32)
    scores = np.array([[0.9, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 0.8, 0.2], [0, 1, 0, 0]], np.float32)
    found = DenseDetector(DenseDetection(threshold=0.3), CLASSES, HEIGHT, WIDTH).detect(
        {"boxes": boxes[np.newaxis], "scores": scores[np.newaxis]}
    )
    assert found.xyxy.tolist() == [[280, 150, 300, 200]]
    assert found.class_id.tolist() == [2]


def test_nan_is_never_reported() -> None:
    detector = DenseDetector(DenseDetection(threshold=0), CLASSES, HEIGHT, WIDTH)
    for name in ("boxes", "scores"):
        outputs = random_outputs(60)
        outputs[name][0, ::2] = np.nan
        found = detector.detect(outputs)
        assert len(found.confidence) > 0
        assert np.isfinite(found.xyxy).all()
        assert np.isfinite(found.confidence).all()


@pytest.mark.parametrize("count", [0, 1])
def test_without_objects_all_arrays_are_empty(count: int) -> None:
    nothing = {"boxes": np.zeros((1, count, 4), np.float32), "scores": np.zeros((1, count, CLASSES), np.float32)}
    found = DenseDetector(DenseDetection(), CLASSES, HEIGHT, WIDTH).detect(nothing)
    assert (found.xyxy.shape, found.confidence.shape, found.class_id.shape) == ((0, 4), (0,), (0,))


def test_outputs_that_do_not_fit_are_refused() -> None:
    detector = DenseDetector(DenseDetection(), CLASSES, HEIGHT, WIDTH)
    with pytest.raises(BundleError, match=r"scores, float32 \(1, n, 4\), but it is float32 \(1, 60, 3\)"):
        detector.detect(random_outputs(60) | {"scores": np.zeros((1, 60, 3), np.float32)})
