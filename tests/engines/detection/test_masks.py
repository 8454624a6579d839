from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import grid_sample, interpolate

from keywarp.engines import Detections
from keywarp.engines.detection import DenseDetector
from keywarp.engines.errors import BundleError
from keywarp.engines.manifest import DenseDetection, Keypoints
from keywarp.engines.masks import InstanceMasks, overlaps
from keywarp.engines.placement import Placement

Array = NDArray[np.float32]
HEIGHT, WIDTH, COUNT, PROTOTYPES = 128, 192, 12, 8


def random_objects() -> dict[str, Array]:
    """Return objects whose boxes overlap the border and one another."""
    random = np.random.default_rng(1)
    centre, size = random.uniform(0, (WIDTH, HEIGHT), (COUNT, 2)), random.uniform(5, 90, (COUNT, 2))
    boxes = np.concatenate((centre - size / 2, centre + size / 2), axis=1)
    scores = np.stack((np.zeros(COUNT), np.linspace(0.9, 0.4, COUNT)), axis=1)
    return {"boxes": boxes[np.newaxis].astype(np.float32), "scores": scores[np.newaxis].astype(np.float32)}


def random_array(*shape: int) -> Array:
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


def detect(outputs: dict[str, Array], **settings: Any) -> Detections:
    return DenseDetector(DenseDetection(iou=1, **settings), 2, HEIGHT, WIDTH).detect(outputs)


def cropped(logits: torch.Tensor, boxes: Array) -> NDArray[np.bool_]:
    """Return where logits are positive, inside boxes only, as Ultralytics' `crop_mask` does."""
    x, y = torch.arange(WIDTH)[None, None], torch.arange(HEIGHT)[None, :, None]
    x1, y1, x2, y2 = torch.from_numpy(boxes)[:, :, None, None].unbind(1)
    return np.asarray((logits > 0) & (x >= x1) & (x < x2) & (y >= y1) & (y < y2))


def test_prototypes_make_the_masks_that_ultralytics_makes_of_them() -> None:
    coefficients, prototypes = random_array(1, COUNT, PROTOTYPES), random_array(1, PROTOTYPES, 32, 48)
    found = detect(
        {**random_objects(), "mask_coefficients": coefficients, "mask_prototypes": prototypes}, masks="prototypes"
    )
    # `process_mask_native`: weighted sum, enlargement, crop, threshold
    small = torch.from_numpy(np.tensordot(coefficients[0], prototypes[0], 1))
    expected = cropped(interpolate(small[None], (HEIGHT, WIDTH), mode="bilinear")[0], found.xyxy)
    assert found.masks is not None
    assert len(found.masks) == COUNT
    whole = found.masks.whole()
    assert expected.sum() > 5000
    assert (whole != expected).sum() <= 2  # sums in another order may have another sign where they are nearly 0
    assert found.masks.areas().tolist() == whole.sum(axis=(1, 2)).tolist()


def test_masks_of_the_image_are_enlarged() -> None:
    masks = random_array(1, COUNT, 16, 24)
    found = detect({**random_objects(), "masks": masks}, masks="image")
    expected = cropped(interpolate(torch.from_numpy(masks), (HEIGHT, WIDTH), mode="bilinear")[0], found.xyxy)
    assert found.masks is not None
    assert (found.masks.whole() != expected).sum() <= 2


def test_masks_of_boxes_are_pasted_into_them() -> None:
    chances = np.random.default_rng(3).uniform(size=(COUNT, 14, 14)).astype(np.float32)
    found = detect({**random_objects(), "masks": chances[np.newaxis] - 0.5}, masks="box")
    x1, y1, x2, y2 = torch.from_numpy(found.xyxy).unbind(1)
    x = (torch.arange(WIDTH) + 0.5 - x1[:, None]) / (x2 - x1)[:, None] * 2 - 1
    y = (torch.arange(HEIGHT) + 0.5 - y1[:, None]) / (y2 - y1)[:, None] * 2 - 1
    size = (COUNT, HEIGHT, WIDTH)
    grid = torch.stack((x[:, None].expand(size), y[:, :, None].expand(size)), dim=3)
    pasted = grid_sample(torch.from_numpy(chances)[:, None], grid, align_corners=False)[:, 0]  # zeros beyond
    assert found.masks is not None
    assert (found.masks.whole() != cropped(pasted - 0.5, found.xyxy)).sum() <= 2


def test_masks_and_keypoints_belong_to_the_objects_that_were_selected() -> None:
    outputs = random_objects()
    outputs["scores"][0, :, 1] = 0
    outputs["scores"][0, [7, 2], 1] = 0.8, 0.9
    masks = np.full((1, COUNT, 4, 4), -1, np.float32)
    masks[0, 7] = 1
    points = random_array(1, COUNT, 2, 3)
    names = Keypoints(names=("head", "foot"), skeleton=((0, 1),))
    found = detect({**outputs, "masks": masks, "keypoints": points}, masks="image", keypoints=names, threshold=0.5)
    assert found.masks is not None
    assert found.keypoints is not None
    assert [area > 0 for area in found.masks.areas()] == [False, True]
    assert found.keypoints[..., :2].tolist() == points[0, [2, 7], :, :2].tolist()


def test_a_keypoint_that_is_not_finite_has_no_confidence() -> None:
    points = np.full((1, COUNT, 1, 3), 0.5, np.float32)
    points[0, 0, 0, 1] = np.nan
    points[0, 1, 0, 2] = 1.001
    found = detect({**random_objects(), "keypoints": points}, keypoints=Keypoints(names=("nose",)))
    assert found.keypoints is not None
    assert found.keypoints[:3, 0].tolist() == [[0, 0, 0], [0.5, 0.5, 1], [0.5, 0.5, 0.5]]


def test_nothing_selected_has_no_masks() -> None:
    empty = {"boxes": np.zeros((1, 0, 4), np.float32), "scores": np.zeros((1, 0, 2), np.float32)}
    found = detect({**empty, "masks": np.zeros((1, 0, 4, 4), np.float32)}, masks="image")
    assert found.masks is not None
    assert found.masks.whole().shape == (0, HEIGHT, WIDTH)


def test_outputs_that_do_not_fit_together_are_refused() -> None:
    outputs = random_objects()
    with pytest.raises(BundleError, match=r"should give masks, float32 \(1, n, h, w\)"):
        detect({**outputs, "masks": random_array(1, COUNT - 1, 4, 4)}, masks="image")
    with pytest.raises(BundleError, match="should give mask_prototypes"):
        detect({**outputs, "mask_coefficients": random_array(1, COUNT, 4)}, masks="prototypes")
    with pytest.raises(BundleError, match=r"should give keypoints, float32 \(1, n, 1, 3\)"):
        detect({**outputs, "keypoints": random_array(1, COUNT, 2, 3)}, keypoints=Keypoints(names=("nose",)))


def windows(*rectangles: tuple[int, int, int, int]) -> InstanceMasks:
    """Return masks (40, 60) of full rectangles x, y, width, height."""
    corners = np.array([r[:2] for r in rectangles], np.intp).reshape(-1, 2)
    return InstanceMasks(40, 60, corners, tuple(np.ones((r[3], r[2]), np.bool_) for r in rectangles))


def test_masks_are_cropped_to_the_picture_in_a_letterbox() -> None:
    masks = windows((5, 0, 10, 20), (0, 0, 3, 3), (50, 30, 10, 10))
    place = Placement(40, 60, 8, 4, 24, 50)
    cropped_masks = masks.crop(place.left, place.top, place.columns, place.rows)
    assert (cropped_masks.whole() == np.stack([place.crop(mask) for mask in masks.whole()])).all()
    assert [w.shape for w in cropped_masks.windows] == [(12, 10), (0, 0), (2, 4)]


def test_masks_are_resized_with_their_picture() -> None:
    masks = windows((10, 20, 12, 8), (0, 0, 60, 40), (0, 0, 0, 0))
    larger = masks.resize(80, 180).whole()
    assert larger.shape == (3, 80, 180)
    assert larger[0, 40:56, 31:65].all()
    rounded = 4  # pixels at the corners
    assert larger.sum(axis=(1, 2)).tolist() == [16 * 36 - rounded, 80 * 180 - rounded, 0]
    smaller = masks.resize(20, 30).whole()
    assert smaller.sum(axis=(1, 2)).tolist() == [6 * 4, 20 * 30, 0]
    assert smaller[0, 10:14, 5:11].all()


def test_overlaps_are_those_of_whole_masks() -> None:
    first, second = windows((0, 0, 20, 20), (30, 10, 20, 10)), windows((10, 10, 20, 20), (30, 10, 20, 10), (0, 0, 0, 9))
    a, b = first.whole()[:, None], second.whole()[None]
    expected = (a & b).sum(axis=(2, 3)) / np.maximum((a | b).sum(axis=(2, 3)), 1)
    assert overlaps(first, second).tolist() == expected.tolist()
    assert overlaps(first, first).diagonal().tolist() == [1, 1]
    with pytest.raises(ValueError, match="60x40 and 30x20"):
        overlaps(first, second.resize(20, 30))
