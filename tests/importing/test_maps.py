"""Which tensors are maps of the image, and whether they move with it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, shape_inference

from keywarp.importing.graph import IMAGE, Graph
from keywarp.importing.maps import MapSpec, Measurement, equivariance, grid_constants, map_of
from tests.importing.files import model_of

HEIGHT, WIDTH = 96, 128


def graph_of(nodes: Sequence[NodeProto], result: Sequence[int], **constants: NDArray[Any]) -> Graph:
    output = (nodes[-1].output[0], TensorProto.FLOAT, result)
    model = model_of(nodes, constants, [(IMAGE, TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])], [output])
    return Graph(shape_inference.infer_shapes(model))


def shaped(*shape: int) -> Graph:
    """Make a graph whose result has a shape."""
    return graph_of([helper.make_node("Anything", [IMAGE], ["x"])], shape)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 5, 12, 16), MapSpec("x", 5, 8, "nchw")),
        ((1, 5, 3, 4), MapSpec("x", 5, 32, "nchw")),
        ((1, 48, 64, 5), MapSpec("x", 5, 2, "nhwc")),
        ((1, 48, 5), MapSpec("x", 5, 16, "tokens")),
        ((1, 53, 5), MapSpec("x", 5, 16, "tokens", 5)),
        ((1, 55, 5), None),  # 7 tokens more than cells
        ((1, 5, 96, 128), None),  # the image's own size
        ((1, 5, 1, 1), None),
        ((2, 5, 12, 16), None),
        ((1, 5, 16, 12), None),
        ((1, 5), None),
    ],
)
def test_a_map_has_the_shape_of_a_grid_of_the_image(shape: tuple[int, ...], expected: MapSpec | None) -> None:
    assert map_of(shaped(*shape), "x", HEIGHT, WIDTH) == expected


def test_strides_other_than_powers_of_two_must_divide_the_image() -> None:
    assert map_of(shaped(1, 257, 5), "x", 224, 224) == MapSpec("x", 5, 14, "tokens", 1)
    assert map_of(shaped(1, 257, 5), "x", 225, 224) is None
    assert map_of(shaped(1, 5, 29, 28), "x", 225, 224) == MapSpec("x", 5, 8, "nchw")  # rounded up


def test_a_map_that_moves_exactly_is_explained_wholly() -> None:
    large = np.random.default_rng(0).normal(size=(3, 14, 18))
    assert equivariance(large[:, :12, :16], large[:, 2:, 2:], 2) == pytest.approx(1)
    assert equivariance(large[:, :12, :16], large[:, :12, :16], 2) == 0
    assert equivariance(np.zeros((3, 12, 16)), np.zeros((3, 12, 16)), 2) == 0


WEIGHTS = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)
PATCHES = helper.make_node("Conv", [IMAGE, "weights"], ["map"], kernel_shape=[8, 8], strides=[8, 8])
ROWS = np.broadcast_to(np.arange(12, dtype=np.float32)[:, None] * 100, (1, 1, 12, 16)).copy()
MAP = MapSpec("map", 8, 8, "nchw")


def test_a_grid_of_coordinates_does_not_move() -> None:
    nodes = [PATCHES, helper.make_node("Add", ["map", "rows"], ["boxes"])]
    graph = graph_of(nodes, (1, 8, 12, 16), weights=WEIGHTS, rows=ROWS)
    boxes = MapSpec("boxes", 8, 8, "nchw")
    measurement = Measurement(graph, HEIGHT, WIDTH)
    assert grid_constants(graph, graph.nodes, HEIGHT, WIDTH) == {"rows"}
    assert measurement.equivariance([MAP, boxes]) == {"map": pytest.approx(1, abs=0.01), "boxes": 0}
    fixed = measurement.fixed([MAP, boxes])
    assert fixed["map"] == 0
    assert fixed["boxes"] > 0.9


def test_a_bias_for_each_channel_is_no_grid() -> None:
    bias = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1)
    nodes = [PATCHES, helper.make_node("Add", ["map", "bias"], ["sum"])]
    graph = graph_of(nodes, (1, 8, 12, 16), weights=WEIGHTS, bias=bias)
    assert grid_constants(graph, graph.nodes, HEIGHT, WIDTH) == set()


def test_a_map_by_chance_is_not_local() -> None:
    """192 queries that mix all cells look like 12 x 16 tokens."""
    mix = np.random.default_rng(1).normal(size=(192, 192)).astype(np.float32)
    shape = np.array([1, 8, 192])
    nodes = [
        PATCHES,
        helper.make_node("Reshape", ["map", "shape"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["tokens"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["mix", "tokens"], ["queries"]),
    ]
    graph = graph_of(nodes, (1, 192, 8), weights=WEIGHTS, shape=shape, mix=mix)
    specs = [MAP, *(MapSpec(name, 8, 8, "tokens") for name in ("tokens", "queries"))]
    local = Measurement(graph, HEIGHT, WIDTH).locality(specs)
    assert local["map"] == local["tokens"] == pytest.approx(1)
    assert local["queries"] == pytest.approx(0.25, abs=0.06)


def test_a_network_that_ignores_the_picture_has_maps_by_their_layout() -> None:
    zeros = np.zeros_like(WEIGHTS)
    graph = graph_of([PATCHES], (1, 8, 12, 16), weights=zeros)
    measurement = Measurement(graph, HEIGHT, WIDTH)
    assert measurement.locality([MAP]) == {"map": 1}
    assert measurement.equivariance([MAP]) == {"map": 0}
