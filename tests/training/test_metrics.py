import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch

from keywarp.datasets import IGNORE
from keywarp.datasets.samples import Boxes
from keywarp.networks.regions import Objects
from keywarp.training.metrics import DetectionMetric, Metric, SegmentationMetric

Corners = tuple[float, float, float, float]
CLASSES = 4
HERE, THERE, ELSEWHERE = (0.0, 0.0, 40.0, 40.0), (100.0, 100.0, 180.0, 160.0), (300.0, 0.0, 320.0, 30.0)
NEARLY_HERE = (0.0, 0.0, 40.0, 30.0)  # IoU 0.75
HALF_FOUND = 51 / 101  # half of the objects are found, nothing else: precision 1 at the recalls 0, 0.01, .. 0.5


def labels(*values: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.array([values], np.uint8)


def truth(*objects: tuple[int, Corners]) -> Boxes:
    corners = np.array([c for _, c in objects], np.float32).reshape(-1, 4)
    return Boxes(corners, np.array([k for k, _ in objects], np.int64))


def found(*objects: tuple[int, float, Corners]) -> Objects:
    """Make objects from (class, score, corners)."""
    return Objects(
        torch.tensor([corners for _, _, corners in objects]).view(-1, 4),
        torch.tensor([score for _, score, _ in objects]),
        torch.tensor([label for label, _, _ in objects], dtype=torch.int64),
    )


def test_iou_is_of_the_pixels_of_all_images_together() -> None:
    metric = SegmentationMetric(classes=2)
    metric.add(labels(0, 0, 1, 1), labels(0, 1, 1, 1))
    metric.add(labels(1, 0, 0, 0), labels(0, 0, 0, 0))
    assert metric.iou() == [4 / 6, 2 / 4]
    assert metric.mean_iou() == pytest.approx((4 / 6 + 2 / 4) / 2)


def test_ignored_pixels_do_not_count() -> None:
    metric = SegmentationMetric(classes=2)
    metric.add(labels(0, 1, IGNORE, IGNORE), labels(0, 1, 0, 1))
    assert metric.iou() == [1, 1]
    other = SegmentationMetric(classes=2, ignore=1)
    other.add(labels(0, 0, 1), labels(0, 0, 0))
    assert other.iou() == [1, None]


def test_a_class_that_is_not_in_the_truth_is_not_in_the_mean() -> None:
    metric = SegmentationMetric(classes=4)
    metric.add(labels(0, 0, 1, 1), labels(0, 2, 1, 1))
    assert metric.per_class() == [1 / 2, 1, 0, None]
    assert metric.value() == pytest.approx(3 / 4)


def test_a_class_that_is_never_predicted_counts_nothing() -> None:
    metric = SegmentationMetric(classes=2)
    metric.add(labels(0, 0, 0, 1), labels(0, 0, 0, 0))
    assert metric.iou() == [3 / 4, 0]
    assert metric.mean_iou() == pytest.approx(3 / 8)


def test_a_duplicate_is_wrong() -> None:
    metric = DetectionMetric(CLASSES)
    metric.add(truth((1, HERE), (1, THERE)), found((1, 0.9, HERE), (1, 0.8, NEARLY_HERE), (1, 0.7, THERE)))
    # precision 1 up to recall 0.5 (51 of the 101), then 2 of 3
    assert metric.mean_ap() == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_wrong_class_finds_nothing() -> None:
    metric = DetectionMetric(CLASSES)
    metric.add(truth((1, HERE), (2, THERE)), found((1, 0.9, HERE), (3, 0.9, THERE)))
    assert metric.per_class() == [None, pytest.approx(1), pytest.approx(0), None]
    assert metric.mean_ap() == pytest.approx(1 / 2)


def test_a_missed_object_costs_its_recall() -> None:
    metric = DetectionMetric(CLASSES)
    metric.add(truth((1, HERE), (1, ELSEWHERE)), found((1, 0.9, NEARLY_HERE)))
    assert metric.mean_ap() == pytest.approx(HALF_FOUND)


def test_a_box_that_overlaps_by_less_than_half_is_wrong() -> None:
    metric = DetectionMetric(CLASSES)
    metric.add(truth((1, HERE)), found((1, 0.9, (0.0, 0.0, 40.0, 19.0))))
    assert metric.mean_ap() == 0


def test_what_is_found_on_an_image_without_objects_is_wrong() -> None:
    metric = DetectionMetric(CLASSES)
    metric.add(truth((1, HERE)), found((1, 0.5, HERE)))
    metric.add(truth(), found((1, 0.9, THERE)))
    metric.add(truth(), found())
    assert metric.mean_ap() == pytest.approx(1 / 2)


def test_adding_after_asking_counts() -> None:
    metric = DetectionMetric(CLASSES)
    metric.add(truth((1, HERE)), found((1, 0.5, HERE)))
    assert metric.mean_ap() == pytest.approx(1)
    metric.add(truth((1, HERE)), found())
    assert metric.mean_ap() == pytest.approx(HALF_FOUND)


def segmentations() -> tuple[Metric, Metric, Metric]:
    """Return metrics of each half of some images and of all of them."""
    first, second, whole = (SegmentationMetric(3) for _ in range(3))
    for half, seed in ((first, 0), (second, 1)):
        drawn = np.random.default_rng(seed).integers(0, 3, (2, 6, 8))
        for metric in (half, whole):
            metric.add(drawn[0], drawn[1])
    return first, second, whole


def detections() -> tuple[Metric, Metric, Metric]:
    """Return metrics of each half of some images and of all of them."""
    first, second, whole = (DetectionMetric(CLASSES) for _ in range(3))
    for metric in (first, whole):
        metric.add(truth((1, HERE), (2, THERE)), found((1, 0.9, HERE), (2, 0.3, HERE)))
    for metric in (second, whole):
        metric.add(truth((1, HERE)), found((1, 0.95, THERE)))
    return first, second, whole


@pytest.mark.parametrize("halves_and_whole", [segmentations, detections])
def test_merging_gives_the_figure_of_all_images_also_from_another_process(
    halves_and_whole: Callable[[], tuple[Metric, Metric, Metric]],
) -> None:
    first, second, whole = halves_and_whole()
    assert first.value() != whole.value()
    first.merge(pickle.loads(pickle.dumps(second)))
    assert first.value() == whole.value()
    assert first.per_class() == whole.per_class()
    assert 0 < whole.value() < 1


@pytest.mark.parametrize("metric", [SegmentationMetric(CLASSES), DetectionMetric(CLASSES)], ids=lambda m: m.name)
def test_without_truth_there_is_no_figure(metric: Metric) -> None:
    assert math.isnan(metric.value())
    assert metric.per_class() == [None] * CLASSES


def test_images_without_any_object_have_no_figure() -> None:
    metric = DetectionMetric(CLASSES)
    metric.add(truth(), found((1, 0.9, HERE)))
    assert math.isnan(metric.value())


def test_frozen_arrays_are_taken() -> None:
    flat = labels(0, 1)
    flat.flags.writeable = False
    segmentation = SegmentationMetric(2)
    segmentation.add(flat, flat)
    objects = truth((1, HERE))
    objects.corners.flags.writeable = False
    detection = DetectionMetric(2)
    detection.add(objects, found((1, 1.0, HERE)))
    assert segmentation.value() == 1
    assert detection.value() == pytest.approx(1)
