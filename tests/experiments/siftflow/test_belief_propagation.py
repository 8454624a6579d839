import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.experiments.siftflow.belief_propagation import (
    FROM_ABOVE,
    FROM_BELOW,
    FROM_LEFT,
    FROM_OTHER_LAYER,
    FROM_RIGHT,
    U,
    V,
    decide,
    match_costs,
    median_cost,
    sweep,
)

WINDOW = 3
STATES = 2 * WINDOW + 1
SLOPE, LIMIT, SHRINKAGE = np.float32(5), np.float32(17), np.float32(0.5)


class Grid:
    """Random costs and messages on a small grid."""

    def __init__(self, seed: int, height: int, width: int, reach: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.costs = random.integers(0, 60, (height, width, STATES, STATES)).astype(np.float32)
        self.offsets = random.integers(-reach, reach + 1, (2, height, width)).astype(np.int32)
        self.messages = random.integers(0, 40, (2, height, width, 5, STATES)).astype(np.float32)

    def sweep(self, layer: int, forward: bool, slope: np.float32 = SLOPE) -> None:
        sweep(self.messages, self.costs, self.offsets, layer, forward, slope, LIMIT, SHRINKAGE)

    def flows(self, layer: int, y: int, x: int) -> NDArray[np.int64]:
        return np.asarray(self.offsets[layer, y, x] + np.arange(-WINDOW, WINDOW + 1), dtype=np.int64)

    def rest(self, layer: int, y: int, x: int, without: int) -> NDArray[np.float64]:
        received = np.delete(self.messages[layer, y, x], without, axis=0).sum(axis=0, dtype=float)
        return np.asarray(received + SHRINKAGE * np.abs(self.flows(layer, y, x)))


def lowest_zero(message: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(message - message.min())


@pytest.mark.parametrize("layer", [U, V])
@pytest.mark.parametrize("reach", [0, 2, 20])  # of the windows' offsets: equal, overlapping, disjoint
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("forward", "sender", "receiver", "back", "name"),
    [
        (True, (0, 0), (0, 1), FROM_RIGHT, FROM_LEFT),
        (False, (0, 1), (0, 0), FROM_LEFT, FROM_RIGHT),
        (True, (0, 0), (1, 0), FROM_BELOW, FROM_ABOVE),
        (False, (1, 0), (0, 0), FROM_ABOVE, FROM_BELOW),
    ],
)
def test_messages_to_neighbours_are_the_truncated_minimum_over_all_pairs_of_flows(
    layer: int,
    reach: int,
    seed: int,
    forward: bool,
    sender: tuple[int, int],
    receiver: tuple[int, int],
    back: int,
    name: int,
) -> None:
    grid = Grid(seed, sender[0] + receiver[0] + 1, sender[1] + receiver[1] + 1, reach)
    differences = grid.flows(layer, *sender)[:, np.newaxis] - grid.flows(layer, *receiver)
    smoothness = np.minimum(SLOPE * np.abs(differences), LIMIT)
    expected = lowest_zero((grid.rest(layer, *sender, back)[:, np.newaxis] + smoothness).min(axis=0))
    grid.sweep(layer, forward)
    np.testing.assert_allclose(grid.messages[layer, *receiver, name], expected, atol=1e-4)


@pytest.mark.parametrize("layer", [U, V])
@pytest.mark.parametrize("forward", [True, False])
def test_messages_to_the_other_layer_are_the_minimum_over_all_matches(layer: int, forward: bool) -> None:
    grid = Grid(0, 1, 1)
    rest = grid.rest(layer, 0, 0, FROM_OTHER_LAYER)
    costs = grid.costs[0, 0]  # (v, u)
    expected = lowest_zero((costs + rest).min(axis=1) if layer == U else (costs.T + rest).min(axis=1))
    grid.sweep(layer, forward)
    np.testing.assert_allclose(grid.messages[1 - layer, 0, 0, FROM_OTHER_LAYER], expected, atol=1e-4)


def test_a_sweep_carries_a_message_across_the_whole_grid() -> None:
    height, width = 6, 9
    costs = np.zeros((height, width, STATES, STATES), np.float32)
    costs[0, 0] = 1000
    costs[0, 0, :, 0] = 0  # only the first pixel knows its u
    offsets = np.zeros((2, height, width), np.int32)
    messages = np.zeros((2, height, width, 5, STATES), np.float32)
    slope, limit, shrinkage = np.float32(100), np.float32(1000), np.float32(0)
    for layer in (V, U):
        sweep(messages, costs, offsets, layer, True, slope, limit, shrinkage)
    assert (decide(messages, offsets, shrinkage)[U] == -WINDOW).all()


def test_without_smoothness_each_pixel_takes_its_own_best_match() -> None:
    grid = Grid(0, 4, 5, reach=6)
    grid.costs += np.random.default_rng(1).random(grid.costs.shape, dtype=np.float32)  # no ties
    grid.messages[:] = 0
    nothing = np.float32(0)
    for layer in (U, V):
        sweep(grid.messages, grid.costs, grid.offsets, layer, True, nothing, nothing, nothing)
    flow = decide(grid.messages, grid.offsets, nothing)
    for y in range(4):
        for x in range(5):
            down, right = np.unravel_index(grid.costs[y, x].argmin(), (STATES, STATES))
            assert flow[U, y, x] == grid.flows(U, y, x)[right]
            assert flow[V, y, x] == grid.flows(V, y, x)[down]


def test_match_costs_are_distances_of_descriptors_and_infinite_outside() -> None:
    random = np.random.default_rng(0)
    current, key = random.integers(0, 256, (2, 5, 7, 128), dtype=np.uint8)
    offsets = random.integers(-2, 3, (2, 5, 7)).astype(np.int32)
    costs = match_costs(current, key, offsets, 1)
    assert costs.shape == (5, 7, 3, 3)
    for (y, x, down, right), cost in np.ndenumerate(costs):
        there_y, there_x = y + offsets[V, y, x] + down - 1, x + offsets[U, y, x] + right - 1
        inside = 0 <= there_y < 5 and 0 <= there_x < 7
        expected = np.abs(current[y, x].astype(int) - key[there_y, there_x]).sum() if inside else np.inf
        assert cost == expected


def test_the_median_cost_ignores_perfect_matches_and_those_outside() -> None:
    costs = np.array([0, 0, 0, 0, 5, 7, 900, np.inf, np.inf, np.inf], np.float32).reshape(1, 1, 2, 5)
    assert median_cost(costs) == 7
    assert median_cost(np.zeros((1, 1, 1, 2), np.float32)) == 0
