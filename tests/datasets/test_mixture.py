import numpy as np
import pytest

from keywarp.datasets.mixture import Mixture
from keywarp.datasets.samples import MAX_GAP, FramePair, Truth


class Plain:
    """A source of pairs whose pixels hold the source's number."""

    def __init__(self, number: int) -> None:
        self.image = np.full((1, 1, 3), number, np.uint8)

    def pair(self, random: np.random.Generator, max_gap: int = MAX_GAP) -> FramePair:
        return FramePair(self.image, self.image, int(random.integers(max_gap + 1)), Truth())


def test_sources_are_drawn_by_their_weights() -> None:
    mixture, random = Mixture([(Plain(1), 2), (Plain(2), 1)]), np.random.default_rng(0)
    drawn = [int(mixture.pair(random).current[0, 0, 0]) for _ in range(900)]
    assert set(drawn) == {1, 2}
    assert 550 < drawn.count(1) < 650


def test_the_gap_and_the_generator_are_passed_to_the_source() -> None:
    mixture = Mixture([(Plain(1), 0.5)])
    first, second = (np.random.default_rng(3) for _ in "ab")
    gaps = [mixture.pair(first, 2).gap for _ in range(50)]
    assert gaps == [mixture.pair(second, 2).gap for _ in range(50)]
    assert set(gaps) == {0, 1, 2}


@pytest.mark.parametrize("weights", [[], [0.0], [1.0, -1.0], [float("nan")]])
def test_weights_that_are_not_positive_numbers_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match=r"positive weights"):
        Mixture([(Plain(1), weight) for weight in weights])
