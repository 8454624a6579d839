"""Frames of any size are resized to the networks' input size."""

from typing import Any

import numpy as np
import pytest

from keywarp.datasets.images import Resize
from keywarp.engines import InvalidFrameError
from keywarp.engines.manifest import ImagePreparation
from keywarp.engines.preparation import check_frame, input_size, resize

DETECTION = ImagePreparation(short_side=600, long_side=1000)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ((720, 1280), (562, 1000)),  # limited by the long side
        ((480, 640), (600, 800)),  # limited by the short side
        ((640, 480), (800, 600)),
        ((1, 4000), (1, 1000)),  # never empty
    ],
)
def test_sides_follow_the_papers_rule(frame: tuple[int, int], expected: tuple[int, int]) -> None:
    assert input_size(*frame, DETECTION) == expected


def test_sides_are_rounded_to_the_multiple() -> None:
    image = ImagePreparation(short_side=272, long_side=640, multiple=16)
    assert input_size(272, 640, image) == (272, 640)
    assert input_size(720, 1280, image) == (272, 480)


def test_a_frame_of_the_right_size_is_not_copied() -> None:
    frame = np.zeros((32, 48, 3), np.uint8)
    assert resize(frame, 32, 48) is frame
    assert resize(frame[:, ::-1], 32, 48).flags.c_contiguous


def test_resize_is_bilinear() -> None:
    frame = np.zeros((1, 2, 3), np.uint8)
    frame[:, 1] = 100
    assert resize(frame, 1, 4)[0, :, 0].tolist() == [0, 25, 75, 100]


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        [[0, 0, 0]],
    ],
)
def test_an_array_that_is_not_a_frame_is_refused(frame: Any) -> None:
    with pytest.raises(InvalidFrameError):
        check_frame(frame)


def test_frames_are_resized_as_they_are_in_training() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (270, 480, 3), np.uint8)
    size = input_size(270, 480, ImagePreparation(short_side=120, long_side=200))
    target = Resize(120, 200)
    assert target.size((270, 480)) == size
    np.testing.assert_array_equal(resize(frame, *size), target.image(frame))
