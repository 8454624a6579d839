import math

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.experiments.siftflow.descriptors import dense_sift


def literal_sift(image: NDArray[np.uint8], cell: int) -> NDArray[np.float64]:
    """Compute the descriptors pixel by pixel, without rounding them down."""
    height, width, channels = image.shape

    def grey(y: int, x: int, channel: int) -> float:
        return float(image[min(max(y, 0), height - 1), min(max(x, 0), width - 1), channel]) / 255

    def derivative(at: list[float]) -> float:
        return (at[0] - 8 * at[1] + 8 * at[3] - at[4]) / 12

    bands = np.zeros((height, width, 8))
    for y in range(height):
        for x in range(width):
            gradients = [
                (
                    derivative([grey(y, x + step, channel) for step in range(-2, 3)]),
                    derivative([grey(y + step, x, channel) for step in range(-2, 3)]),
                )
                for channel in range(channels)
            ]
            dx, dy = max(gradients, key=lambda gradient: math.hypot(*gradient))
            for orientation in range(8):
                angle = orientation * math.pi / 4
                strength = math.hypot(dx, dy)
                cosine = (dx * math.cos(angle) + dy * math.sin(angle)) / strength if strength else 0.0
                bands[y, x, orientation] = strength * max(cosine, 0.0) ** 9

    def summed(y: int, x: int) -> NDArray[np.float64]:  # over the cell around a pixel and its shoulders
        total = np.zeros(8)
        for i in range(-1, cell + 1):
            for j in range(-1, cell + 1):
                weight = (0.25 if i in (-1, cell) else 1) * (0.25 if j in (-1, cell) else 1)
                row, column = y - cell // 2 + i, x - cell // 2 + j
                total += weight * bands[min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
        return total

    descriptors = np.zeros((height, width, 128))
    for y in range(height):
        for x in range(width):
            cells = []
            for row in range(-2, 2):
                for column in range(-2, 2):
                    middle_y, middle_x = y + row * cell + cell // 2, x + column * cell + cell // 2
                    cells.append(summed(min(max(middle_y, 0), height - 1), min(max(middle_x, 0), width - 1)))
            descriptor = np.concatenate(cells)
            descriptors[y, x] = 255 * descriptor / (np.linalg.norm(descriptor) + 0.01)
    return descriptors


@pytest.mark.parametrize(("size", "cell"), [((14, 17), 3), ((9, 11), 2), ((1, 12), 3), ((5, 1), 1)])
def test_descriptors_equal_those_of_a_literal_loop(size: tuple[int, int], cell: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    descriptors = dense_sift(image, cell)
    assert descriptors.shape == (*size, 128)
    difference = literal_sift(image, cell) - descriptors
    assert difference.min() > -0.01
    assert difference.max() < 1.01


def test_a_flat_image_has_no_descriptors() -> None:
    assert not dense_sift(np.full((12, 12, 3), 90, np.uint8), 3).any()


def test_brightness_and_contrast_hardly_change_a_descriptor() -> None:
    image = np.random.default_rng(1).integers(0, 100, (20, 20, 3), dtype=np.uint8)
    difference = dense_sift(image, 3).astype(int) - dense_sift(2 * image + 30, 3)
    assert np.abs(difference).max() <= 2
