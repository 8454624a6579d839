import numpy as np
import pytest

from keywarp.engines import Detections, LabelMap
from keywarp.engines.reliability import rate

CELLS = np.array([[1, 1, 1, 1], [1, 0.5, 0.25, 1]], np.float32)  # of a frame of 32x64 pixels


def boxes(*xyxy: tuple[float, float, float, float]) -> Detections:
    number = len(xyxy)
    return Detections(np.array(xyxy, np.float32).reshape(-1, 4), np.ones(number, np.float32), np.ones(number, np.intp))


def test_a_box_has_the_mean_of_its_cells() -> None:
    output, _ = rate(boxes((0, 0, 16, 16), (16, 16, 48, 32), (17, 0, 31, 20)), CELLS, 32, 64)
    assert isinstance(output, Detections)
    assert output.reliability is not None
    np.testing.assert_allclose(output.reliability, [1, 0.375, 0.75])


def test_a_result_has_the_mean_of_all_cells_with_objects_or_failed_motion() -> None:
    _, reliability = rate(boxes((0, 0, 32, 16)), CELLS, 32, 64)
    assert reliability == pytest.approx((1 + 1 + 0.5 + 0.25) / 4)


def test_something_new_outside_of_all_boxes_matters_too() -> None:
    _, reliability = rate(boxes(), CELLS, 32, 64)
    assert reliability == pytest.approx(0.375)


def test_without_objects_and_with_everything_explained_a_result_is_reliable() -> None:
    output, reliability = rate(boxes(), np.ones((2, 4), np.float32), 32, 64)
    assert reliability == 1
    assert isinstance(output, Detections)
    assert output.reliability is not None
    assert len(output.reliability) == 0


def test_the_labels_of_objects_say_which_cells_matter() -> None:
    labels = np.zeros((32, 64), np.uint8)
    labels[:, 48:] = 2
    _, reliability = rate(LabelMap(labels), CELLS, 32, 64)
    assert reliability == pytest.approx((1 + 1 + 0.5 + 0.25) / 4)


@pytest.mark.parametrize("box", [(-50, -50, -10, -10), (70, 40, 90, 50), (63.9, 31.9, 64, 32), (5, 5, 5, 5)])
def test_boxes_at_the_border_or_beyond_it_are_rated_by_the_nearest_cell(box: tuple[float, ...]) -> None:
    output, _ = rate(boxes(box), CELLS, 32, 64)  # type: ignore[arg-type]
    assert isinstance(output, Detections)
    assert output.reliability is not None
    assert output.reliability[0] == 1


def test_without_a_background_all_of_a_label_map_matters() -> None:
    labels = LabelMap(np.zeros((32, 64), np.uint8))
    assert rate(labels, CELLS, 32, 64)[1] == pytest.approx(0.375)
    assert rate(labels, CELLS, 32, 64, background=False)[1] == pytest.approx(CELLS.mean())
