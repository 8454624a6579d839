"""Minimum cuts, beside all cuts of small random graphs."""

from itertools import combinations
from math import inf

import numpy as np
import pytest

from keywarp.importing.minimum_cut import FlowGraph

Edges = list[tuple[int, int, float]]


def all_cuts(vertices: int, edges: Edges) -> dict[frozenset[int], float]:
    inner = range(2, vertices + 2)
    sides = [frozenset({0, *chosen}) for count in range(vertices + 1) for chosen in combinations(inner, count)]
    return {side: sum(c for tail, head, c in edges if tail in side and head not in side) for side in sides}


@pytest.mark.parametrize("seed", range(25))
def test_the_cut_is_the_cheapest_and_its_source_side_the_largest(seed: int) -> None:
    random = np.random.default_rng(seed)
    vertices = 6
    ends = [(int(a), int(b)) for a, b in random.integers(0, vertices + 2, (18, 2)) if a != b and b != 0 and a != 1]
    edges: Edges = [(a, b, float(random.choice([1.0, 2.0, 3.5, inf], p=[0.35, 0.3, 0.3, 0.05]))) for a, b in ends]
    graph = FlowGraph(vertices)
    for edge in edges:
        graph.connect(*edge)
    cuts = all_cuts(vertices, edges)
    cheapest = min(cuts.values())
    side = graph.source_side()
    if cheapest == inf:
        assert side is None
    else:
        assert side is not None
        assert cuts[frozenset(side)] == pytest.approx(cheapest)
        assert len(side) == max(len(cut) for cut, cost in cuts.items() if cost == pytest.approx(cheapest))


def test_capacities_may_differ_by_many_orders_of_magnitude() -> None:
    graph = FlowGraph(2)
    graph.connect(FlowGraph.SOURCE, 2, 3e11)
    graph.connect(2, 3, 1e3)
    graph.connect(3, FlowGraph.SINK, 1e12)
    assert graph.source_side() == {0, 2}
