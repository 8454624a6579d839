import numpy as np
import pytest

from keywarp.engines import MotionVectors
from keywarp.images.orientation import turn


@pytest.mark.parametrize("orientation", range(1, 9))
def test_motion_vectors_are_turned_with_their_frame(orientation: int) -> None:
    width, height = 48, 32
    corners, sizes = np.array([[8, 4], [32, 16]], np.int16), np.array([[16, 8], [8, 4]], np.int16)
    moved = np.array([[3, -2], [-5, 6]], np.float32)
    stored = MotionVectors(width, height, "P", corners, sizes, moved, np.zeros(2, np.bool_))
    turned = stored.turned(orientation)
    number_of = np.arange(width * height).reshape(height, width)
    pixels = np.stack([number_of >> 8, number_of & 255, number_of * 0], axis=2).astype(np.uint8)
    places = turn(pixels, orientation).astype(int) @ [256, 1, 0]
    assert (turned.height, turned.width) == places.shape

    def place_of(x: int, y: int) -> np.ndarray:
        row, column = np.argwhere(places == y * width + x)[0]
        return np.array([column, row])

    for number in range(2):
        (x, y), (w, h) = corners[number], sizes[number]
        whole = [place_of(column, row) for column in (x, x + w - 1) for row in (y, y + h - 1)]
        assert turned.corners[number].tolist() == np.min(whole, axis=0).tolist()
        assert (turned.corners[number] + turned.sizes[number] - 1).tolist() == np.max(whole, axis=0).tolist()
        dx, dy = moved[number].astype(int)
        expected = place_of(x + dx, y + dy) - place_of(x, y)
        assert turned.displacements[number].tolist() == expected.tolist()
