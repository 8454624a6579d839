"""Find the layers that must stay in fp32 for results to stay close to fp32.

Layers are ranked by the share of the disagreement that each of them is likely to cause: the disagreement with its whole
graph quantised, times its share of the errors that the graph's layers cause one by one. Then the smallest number of
layers at the head of that ranking is searched by doubling and bisection.
"""

import time
from collections.abc import Callable, Mapping
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
    ranking = rank(graphs, feeds, judge, advance)
    tried = {0: everything}

    def within(count: int) -> bool:
        if count not in tried:
            advance("searching", len(tried), None)
            tried[count] = judge(layers - frozenset(ranking[:count]))
        return tried[count].agreement >= tolerance

    low, high = 0, 1  # `low` layers are too few
    while not within(high):
        if high == len(ranking) or time.monotonic() > deadline:
            best = max(tried, key=lambda count: tried[count].agreement)
            return _found(layers, ranking, best, tried, complete=False)
        low, high = high, min(2 * high, len(ranking))
    while high - low > 1 and time.monotonic() <= deadline:
        middle = (low + high) // 2
        low, high = (low, middle) if within(middle) else (middle, high)
    return _found(layers, ranking, high, tried, complete=high - low == 1)


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


def _found(
    layers: Layers, ranking: list[Layer], count: int, tried: Mapping[int, Judgement], *, complete: bool
) -> Found:
    left = tuple(ranking[:count])
    return Found(layers - frozenset(left), left, tried[count], tried[0], complete)
