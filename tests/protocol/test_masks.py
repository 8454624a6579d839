"""Masks on the wire."""

import numpy as np
import pytest

from keywarp.protocol import run_lengths


@pytest.mark.parametrize(
    ("mask", "lengths"),
    [([[0, 1], [0, 1]], [2, 2]), ([[1, 0], [1, 1]], [0, 2, 1, 1]), ([[1]], [0, 1]), ([[0, 0]], [2])],
)
def test_run_lengths_go_down_the_columns_from_outside(mask: list[list[int]], lengths: list[int]) -> None:
    found = run_lengths(np.array(mask, bool))
    assert (list(found.counts), found.size) == (lengths, np.shape(mask))
