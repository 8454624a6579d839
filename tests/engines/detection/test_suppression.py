import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.ops import nms

from keywarp.engines.detection.suppression import suppress

Array = NDArray[np.float32]


def random_boxes(count: int, spread: float) -> Array:
    """Make boxes, the best first. The smaller the spread is, the more of them overlap."""
    random = np.random.default_rng(count)
    centre, size = random.uniform(0, spread, (count, 2)), random.uniform(20, 60, (count, 2))
    return np.concatenate((centre, centre + size), axis=1).astype(np.float32)


def one_group(boxes: Array) -> NDArray[np.intp]:
    return np.zeros(len(boxes), np.intp)


@pytest.mark.parametrize("iou", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("spread", [10, 100, 1000])
def test_the_kept_boxes_are_torchvisions(iou: float, spread: float) -> None:
    boxes = random_boxes(700, spread)
    expected = nms(torch.from_numpy(boxes), torch.arange(len(boxes), 0, -1.0), iou)
    assert suppress(boxes, one_group(boxes), iou, len(boxes)).tolist() == expected.tolist()
    assert suppress(boxes, one_group(boxes), iou, 5).tolist() == expected[:5].tolist()


@pytest.mark.parametrize("shared", range(1, 10))
def test_overlaps_at_the_threshold_are_rounded_as_torchvision_does(shared: int) -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, shared]], np.float32)
    expected = nms(torch.from_numpy(boxes), torch.tensor([2.0, 1.0]), shared / 10)
    assert suppress(boxes, one_group(boxes), shared / 10, 2).tolist() == expected.tolist()


def test_an_overlap_of_exactly_the_threshold_is_allowed() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 7]], np.float32)  # 70 of 100
    assert suppress(boxes, one_group(boxes), 0.7, 2).tolist() == [0, 1]
    assert suppress(boxes, one_group(boxes), 0.69, 2).tolist() == [0]


def test_boxes_of_different_groups_do_not_compete() -> None:
    boxes = np.array([[0, 0, 10, 10]] * 4, np.float32)
    assert suppress(boxes, np.array([1, 2, 1, 2]), 0.3, 4).tolist() == [0, 1]


def test_a_suppressed_box_suppresses_nothing() -> None:
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
    assert suppress(boxes, one_group(boxes), 0.3, 3).tolist() == [0, 2]


def test_without_boxes_none_are_kept() -> None:
    assert suppress(np.zeros((0, 4), np.float32), np.zeros(0, np.intp), 0.5, 10).tolist() == []


def test_boxes_whose_area_underflows_are_kept_as_in_torchvision() -> None:
    boxes = np.array([[0, 0, 1e-30, 1e-30]] * 3, np.float32)
    expected = nms(torch.from_numpy(boxes), torch.tensor([3.0, 2.0, 1.0]), 0.5)
    assert suppress(boxes, one_group(boxes), 0.5, 3).tolist() == expected.tolist() == [0, 1, 2]
