"""Masks on the wire."""

import numpy as np
import pytest

from keywarp.protocol import run_lengths, window_run_lengths


@pytest.mark.parametrize(
    ("mask", "lengths"),
    [([[0, 1], [0, 1]], [2, 2]), ([[1, 0], [1, 1]], [0, 2, 1, 1]), ([[1]], [0, 1]), ([[0, 0]], [2])],
)
def test_run_lengths_go_down_the_columns_from_outside(mask: list[list[int]], lengths: list[int]) -> None:
    found = run_lengths(np.array(mask, bool))
    assert (list(found.counts), found.size) == (lengths, np.shape(mask))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95, 1.0])
def test_a_windows_run_lengths_are_those_of_the_whole_mask(share: float) -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        height, width = random.integers(1, 8, 2).tolist()
        (top, bottom), (left, right) = (sorted(random.integers(0, size + 1, 2).tolist()) for size in (height, width))
        window = random.random((bottom - top, right - left)) < share
        mask = np.zeros((height, width), np.bool_)
        mask[top:bottom, left:right] = window
        assert window_run_lengths(window, left, top, height, width) == run_lengths(mask)
