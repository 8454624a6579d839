from pathlib import Path

import numpy as np
import pytest

from keywarp.datasets import DataError, Detector, TeacherDetection
from keywarp.datasets.detector import suppress_duplicates, tiles


@pytest.mark.parametrize("grid", [(1, 1), (2, 1), (3, 2), (4, 3)])
def test_tiles_cover_the_frame_and_overlap(grid: tuple[int, int]) -> None:
    seen = np.zeros((272, 641), int)
    for x0, y0, x1, y1 in tiles(272, 641, grid):
        seen[y0:y1, x0:x1] += 1
    assert seen.min() >= 1
    assert seen.max() == min(grid[0], 2) * min(grid[1], 2)


def test_the_box_with_the_highest_score_is_kept_among_overlapping_ones() -> None:
    sure = TeacherDetection(0, 0.9, (0, 0, 10, 10))
    shifted = TeacherDetection(0, 0.5, (1, 1, 11, 11))
    inside = TeacherDetection(0, 0.8, (2, 2, 5, 5))
    apart = TeacherDetection(0, 0.3, (20, 0, 30, 10))
    assert suppress_duplicates([shifted, apart, inside, sure]) == [sure, apart]


def test_a_file_that_is_not_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_text("no model")
    with pytest.raises(DataError, match="not a TensorFlow Lite model"):
        Detector(tmp_path / "model.tflite")
