"""Find the layers that must stay in fp32 for results to stay close to fp32.

Layers are ranked in two ways. One is the share of the disagreement that each of them is likely to cause: the
disagreement with its whole graph quantised, times its share of the errors that the graph's layers cause one by one. The
other is the order in which they run, since all later layers carry on what the first ones round, and tensors between two
layers in fp32 are exact. In each ranking, the smallest number of layers at its head is searched by doubling and
bisection. The shorter head counts.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from keywarp.quantization.capture import Feed
from keywarp.quantization.graph import GraphQuantizer
from keywarp.quantization.judging import Judgement

RANKING_FEEDS = 2  # inputs of a graph on which single layers are tried

Layer = tuple[str, str]  # graph and layer
Layers = frozenset[Layer]
TryLayers = Callable[[Layers], Judgement]  # quantises these layers, and judges
Advance = Callable[[str, int, int | None], None]  # what is being done, how much of it is done, and of how much


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found."""

    quantized: Layers
    unquantized: tuple[Layer, ...]  # the most sensitive one first
    judgement: Judgement
    everything: Judgement  # with all layers quantised
    complete: bool  # whether no smaller number of layers would do; False if time ran out


def search(
    graphs: Mapping[str, GraphQuantizer],
    feeds: Mapping[str, list[Feed]],
    judge: TryLayers,
    tolerance: float,
    deadline: float,
    advance: Advance,
) -> Found:
    """Find the layers that can be quantised within a tolerance.

    Args:
        graphs: The graphs, by name.
        feeds: Their inputs.
        judge: Judges a choice of layers.
        tolerance: The least agreement, 0..1.
        deadline: The time by `time.monotonic` after which only what was found so far counts.
        advance: Is told how far the search is.

    Returns:
        The best choice within the tolerance. If there is none, the closest one.
    """
    layers = frozenset((name, layer) for name, graph in graphs.items() for layer in graph.layers)
    everything = judge(layers)
    if everything.agreement >= tolerance:
        return Found(layers, (), everything, everything, complete=True)
    tried: dict[Layers, Judgement] = {frozenset(): everything}

    def judge_without(left: Layers) -> Judgement:
        if left not in tried:
            advance("searching", len(tried), None)
            tried[left] = judge(layers - left)
        return tried[left]

    head = _shortest_head(rank(graphs, feeds, judge, advance), judge_without, tolerance, deadline)
    in_order = [(name, layer) for name, graph in graphs.items() for layer in graph.layers]
    shorter = len(head.layers) - 1 if head.judgement.agreement >= tolerance else len(in_order)
    if time.monotonic() <= deadline:
        other = _shortest_head(in_order[:shorter], judge_without, tolerance, deadline)
        if other.judgement.agreement >= min(tolerance, head.judgement.agreement):
            head = other
    left = frozenset(head.layers)
    return Found(layers - left, head.layers, head.judgement, everything, head.complete)


@dataclass(frozen=True, slots=True)
class _Head:
    """The first layers of a ranking."""

    layers: tuple[Layer, ...]
    judgement: Judgement  # without them
    complete: bool  # whether no smaller number of them would do


def _shortest_head(ranking: Sequence[Layer], judge_without: TryLayers, tolerance: float, deadline: float) -> _Head:
    """Return the fewest of a ranking's first layers without which results are within the tolerance, or the closest."""
    tried: dict[int, Judgement] = {}

    def within(count: int) -> bool:
        tried[count] = judge_without(frozenset(ranking[:count]))
        return tried[count].agreement >= tolerance

    def head(count: int, *, complete: bool) -> _Head:
        return _Head(tuple(ranking[:count]), tried[count], complete)

    low, high = 0, min(1, len(ranking))  # `low` layers are too few
    while not within(high):
        if high == len(ranking) or time.monotonic() > deadline:
            return head(max(tried, key=lambda count: tried[count].agreement), complete=False)
        low, high = high, min(2 * high, len(ranking))
    while high - low > 1 and time.monotonic() <= deadline:
        middle = (low + high) // 2
        low, high = (low, middle) if within(middle) else (middle, high)
    return head(high, complete=high - low == 1)


def rank(
    graphs: Mapping[str, GraphQuantizer], feeds: Mapping[str, list[Feed]], judge: TryLayers, advance: Advance
) -> list[Layer]:
    """Return all layers, the most sensitive one first.

    Args:
        graphs: The graphs, by name.
        feeds: Their inputs.
        judge: Judges a choice of layers.
        advance: Is told how many layers were tried.
    """
    total = sum(len(graph.layers) for graph in graphs.values())
    done = 0
    shares: dict[Layer, float] = {}
    for name, graph in graphs.items():
        alone = frozenset((name, layer) for layer in graph.layers)
        disagreement = 1 - judge(alone).agreement if len(graphs) > 1 else 1.0
        errors: dict[str, float] = {}
        for layer in graph.layers:
            errors[layer] = graph.error([layer], feeds[name][:RANKING_FEEDS])
            done += 1
            advance("ranking layers", done, total)
        whole = sum(errors.values()) or 1.0
        shares |= {(name, layer): disagreement * error / whole for layer, error in errors.items()}
    return sorted(shares, key=lambda layer: -shares[layer])
