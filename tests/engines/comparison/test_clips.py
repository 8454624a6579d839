"""Where key frames start."""

import numpy as np
import pytest

from keywarp.engines.comparison.clips import choose_stride, key_start


@pytest.mark.parametrize("stride", [1, 3, 5, 10])
def test_there_is_one_start_in_each_block(stride: int) -> None:
    starts = np.array([key_start(n, stride) for n in range(100)])
    assert (starts // stride == np.arange(100)).all()


@pytest.mark.parametrize("rhythm", [2, 5, 10, 12, 25])
def test_starts_follow_no_rhythm_of_the_video(rhythm: int) -> None:
    phases = np.bincount([key_start(n, 5) % rhythm for n in range(500)], minlength=rhythm)
    assert phases.min() > 0.8 * 500 / rhythm


def test_long_clips_are_sampled() -> None:
    assert choose_stride(5, 1000, ages=9, max_frames=None) == 5
    assert choose_stride(5, 1000, ages=9, max_frames=1000) == 5
    stride = choose_stride(5, 1000, ages=9, max_frames=200)
    starts = [n for n in range(1000) if key_start(n, stride) + 9 < 1000]
    assert 150 < 10 * len(starts) <= 200
    assert max(key_start(n, stride) for n in starts) > 900
