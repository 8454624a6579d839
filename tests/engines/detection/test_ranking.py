import numpy as np
import pytest

from keywarp.engines.detection.ranking import best_indices


@pytest.mark.parametrize("count", [1, 7, 999, 1000, 5000])
def test_the_best_are_those_of_a_stable_sort(count: int) -> None:
    scores = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert best_indices(scores, count).tolist() == np.argsort(-scores, kind="stable")[:count].tolist()


@pytest.mark.parametrize("count", [1, 3, 10, 50, 100])
def test_the_lower_index_comes_first_among_equal_scores(count: int) -> None:
    scores = (np.random.default_rng(1).integers(-2, 3, 100) / 2).astype(np.float32)
    scores[3], scores[5] = -0.0, 0.0
    assert best_indices(scores, count).tolist() == np.argsort(-scores, kind="stable")[:count].tolist()


def test_infinite_scores_are_ranked_and_nan_is_ignored() -> None:
    scores = np.array([np.nan, 1, -np.inf, np.inf, -np.nan, -1, 0], np.float32)
    assert best_indices(scores, 10).tolist() == [3, 1, 6, 5, 2]
    assert best_indices(scores, 2).tolist() == [3, 1]
    assert best_indices(np.full(4, np.nan, np.float32), 2).tolist() == []
    assert best_indices(np.zeros(0, np.float32), 2).tolist() == []
