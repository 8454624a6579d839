"""The error of features."""

import numpy as np
import pytest

from keywarp.engines.comparison.features import moments, relative_error, squared_error


def test_the_error_is_relative_to_copied_features_and_the_same_in_every_unit() -> None:
    random = np.random.default_rng(0)
    key = [random.normal(size=(3, 4, 5)), random.normal(size=(2, 2, 3))]
    true = [random.normal(size=m.shape) for m in key]
    halfway = [(k + t) / 2 for k, t in zip(key, true, strict=True)]

    def error(factors: list[float]) -> float | None:
        k, t, h = ([m * f for m, f in zip(maps, factors, strict=True)] for maps in (key, true, halfway))
        return relative_error(squared_error(h, t), squared_error(k, t), moments(k), 1, [3, 2])

    assert error([1, 1]) == pytest.approx(0.5)
    assert error([1000, 0.01]) == pytest.approx(0.5)


def test_a_channel_counts_by_its_share_of_its_own_spread() -> None:
    key = [np.array([[[0.0, 2.0]], [[0.0, 20.0]]])]  # two channels with standard deviations 1 and 10
    true = [key[0] + np.array([1.0, 10.0]).reshape(2, 1, 1)]
    warped = [key[0] + np.array([1.0, 0.0]).reshape(2, 1, 1)]  # the second channel is still wrong
    error = relative_error(squared_error(warped, true), squared_error(key, true), moments(key), 1, [2])
    assert error == pytest.approx(0.5**0.5)


@pytest.mark.parametrize("spread", [0.0, 0.01])
def test_channels_that_hardly_vary_are_left_out(spread: float) -> None:
    key = [np.array([[[0.0, 2.0]], [[7.0, 7.0 + spread]]])]
    true = [np.array([[[1.0, 3.0]], [[8.0, 8.0]]])]
    warped = [np.array([[[1.0, 3.0]], [[5.0, 5.0]]])]  # right where it counts
    assert relative_error(squared_error(warped, true), squared_error(key, true), moments(key), 1, [2]) == 0


def test_without_change_there_is_no_relative_error() -> None:
    key = [np.array([[[0.0, 2.0]]])]
    assert relative_error(squared_error(key, key), squared_error(key, key), moments(key), 1, [1]) is None
