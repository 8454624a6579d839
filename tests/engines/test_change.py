"""The change between frames that motion doesn't explain."""

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines.change import Thumbnail, change_after_motion, change_without_motion
from tests.engines.scenes import HEIGHT, WIDTH, lighter, pan, scene, still


def moved(current: NDArray[np.uint8], key: NDArray[np.uint8]) -> float:
    return change_after_motion(Thumbnail.of(current), Thumbnail.of(key))


def unmoved(current: NDArray[np.uint8], key: NDArray[np.uint8]) -> float:
    return change_without_motion(Thumbnail.of(current), Thumbnail.of(key))


def test_the_same_picture_has_not_changed() -> None:
    assert moved(scene(), scene()) == unmoved(scene(), scene()) == 0


def test_motion_does_not_explain_another_scene() -> None:
    assert min(moved(scene(0), scene(1)), unmoved(scene(0), scene(1))) > 0.45


def test_motion_within_the_view_is_explained() -> None:
    key, *_, current = pan(9, speed=2)
    assert moved(current, key) < 0.5 * unmoved(current, key)


def test_content_that_comes_into_view_counts_by_its_area() -> None:
    """Of 160 columns, 8 are 5 % of the picture, and 16 are 10 %."""
    frames = list(pan(17, speed=1))
    assert moved(frames[8], frames[0]) > 0.05
    assert moved(frames[16], frames[0]) > 0.1


def test_an_object_that_appears_counts_by_its_area() -> None:
    small, large = scene(), scene()
    small[30:42, 50:75] = 250
    large[10:60, 50:130] = 250
    assert 0.01 < moved(small, scene()) < moved(large, scene()) / 3


def test_camera_noise_hardly_counts() -> None:
    key, current = still(2, noise=8)
    assert moved(current, key) < 0.06


@pytest.mark.parametrize("factor", [0.75, 1.3])
def test_a_change_of_light_by_less_than_a_stop_hardly_counts(factor: float) -> None:
    dim = lighter(scene(), 0.7)
    assert moved(lighter(dim, factor), dim) < 0.03


def test_a_lamp_in_a_corner_counts() -> None:
    lit = scene()
    lit[:, :100] = lighter(lit[:, :100], 1.6)
    assert moved(lit, scene()) > 0.1


def test_switching_the_light_off_counts() -> None:
    assert moved(lighter(scene(), 0.2), scene()) > 0.3


def test_the_measure_does_not_depend_on_the_frames_size() -> None:
    key, *_, current = pan(9, speed=3)
    double = moved(current.repeat(2, 0).repeat(2, 1), key.repeat(2, 0).repeat(2, 1))
    assert double == pytest.approx(moved(current, key), abs=0.02)


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1), (3, 5), (31, 33), (2160, 3840)])
def test_frames_of_any_size_are_measured(size: tuple[int, int]) -> None:
    black, white = np.zeros((*size, 3), np.uint8), np.full((*size, 3), 255, np.uint8)
    assert moved(black, black) == unmoved(black, black) == 0
    assert moved(white, black) == pytest.approx(1)


def test_frames_need_not_be_contiguous() -> None:
    wide = scene(width=2 * WIDTH)
    assert moved(wide[:, ::2], np.ascontiguousarray(wide[:, ::2])) == 0
    assert Thumbnail.of(wide[::-1]).frame_shape == (HEIGHT, 2 * WIDTH, 3)
