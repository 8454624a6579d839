"""Which layers stay in fp32, on the layers of a real graph, with a judge that a test makes up."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from keywarp.quantization.graph import GraphQuantizer
from keywarp.quantization.judging import Judgement
from keywarp.quantization.search import Found, Layers, search
from tests.quantization.networks import HEIGHT, WIDTH, layered_bundle

FEATURES = "features.onnx"
GOOD, BAD = Judgement(1.0, 1.0), Judgement(0.9, 0.9)


@pytest.fixture
def graph(tmp_path: Path) -> GraphQuantizer:
    bundle = layered_bundle(tmp_path / "layered", outlier=True)
    return GraphQuantizer(FEATURES, bundle.graph(FEATURES), feeds())


def feeds() -> list[dict[str, np.ndarray]]:
    return [{"image": np.random.default_rng(0).uniform(-120, 120, (1, 3, HEIGHT, WIDTH)).astype(np.float32)}]


def find(graph: GraphQuantizer, good: Callable[[Layers], bool], seconds: float = 60) -> Found:
    """Search with a tolerance that only good choices of quantised layers are within."""

    def judge(layers: Layers) -> Judgement:
        return GOOD if good(layers) else BAD

    deadline = time.monotonic() + seconds
    return search({FEATURES: graph}, {FEATURES: feeds()}, judge, 0.99, deadline, lambda *_: None)


def test_the_most_sensitive_layer_alone_stays_if_that_is_enough(graph: GraphQuantizer) -> None:
    outlier = (FEATURES, graph.layers[3])
    found = find(graph, lambda layers: outlier not in layers)
    assert found.unquantized == (outlier,)
    assert (found.judgement, found.everything, found.complete) == (GOOD, BAD, True)


def test_the_first_layers_stay_if_they_are_fewer_than_the_most_sensitive_ones(graph: GraphQuantizer) -> None:
    first = tuple((FEATURES, layer) for layer in graph.layers[:2])
    found = find(graph, lambda layers: layers.isdisjoint(first))
    assert found.unquantized == first
    assert len(found.quantized) == 3
    assert found.complete


def test_without_a_choice_within_the_tolerance_the_search_is_incomplete(graph: GraphQuantizer) -> None:
    found = find(graph, lambda _: False)
    assert (found.judgement, found.complete) == (BAD, False)
