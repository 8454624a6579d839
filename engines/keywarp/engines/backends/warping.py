"""Replace a graph's warp by one `KeywarpWarp` node. The warp is a GridSample and the nodes that compute its grid.

In ONNX the warp consists of about fifty nodes: the coordinates of the cells plus the flow, normalised to -1..1, a
GridSample, and the product with the scale field. The plugin does all of it in one pass over the features. A GridSample
is replaced only after a check: the nodes that compute its grid are run on the CPU on a random flow, and must give the
grid of Eq. 1 to 3 of the paper.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

WARP = "KeywarpWarp"  # inputs: features, flow, and optionally scale; output: warped
_PROBE = (5, 7)  # size (H, W) of the maps that the check runs on, cells
_SHAPES = frozenset({"Shape", "Size"})  # operators that don't read values


@dataclass(frozen=True, slots=True)
class WarpNode:
    """A GridSample node whose grid was checked to be that of Eq. 1."""

    sample: onnx.NodeProto
    flow: str  # the tensor (N, 2, H, W), in cells of the features
    grid: tuple[str, ...]  # the outputs of the nodes from `flow` to the grid


def find_warps(model: onnx.ModelProto) -> list[WarpNode]:
    """Return the GridSample nodes of a graph from `simplify` that warp by a flow in cells."""
    graph = _Graph.of(model)
    return [warp for node in model.graph.node if node.op_type == "GridSample" if (warp := _match_warp(graph, node))]


def insert_plugin(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Replace the warps of a graph by `KeywarpWarp` nodes. Any other GridSample stays.

    Args:
        model: A graph from `simplify` with static shapes. It isn't changed.

    Returns:
        The new graph, and the number of replaced warps.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = _Graph.of(result)
    shapes = static_shapes(model)
    replaced: dict[str, onnx.NodeProto] = {}  # new nodes, by the output of the node that each replaces
    for warp in find_warps(model):
        features, output = warp.sample.input[0], warp.sample.output[0]
        inputs = [features, warp.flow]
        product = graph.only_reader(output)
        if product is not None and product.op_type == "Mul":
            scale = product.input[1] if product.input[0] == output else product.input[0]
            if graph.is_one(scale):
                output = product.output[0]
            elif scale in shapes and shapes[scale] == shapes.get(features):
                output = product.output[0]
                inputs.append(scale)
        replaced[output] = helper.make_node(WARP, inputs, [output], name=f"{WARP}_{len(replaced)}")
        if features in shapes:
            result.graph.value_info.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, shapes[features]))
    nodes = [replaced.get(node.output[0], node) for node in result.graph.node]
    del result.graph.node[:]
    result.graph.node.extend(prune_unused(nodes, {value.name for value in result.graph.output}))
    return result, len(replaced)


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a graph without nodes that only pass a tensor on, and with a name for every node."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    ends = {value.name for value in model.graph.output}
    made = {output for node in model.graph.node for output in node.output}
    alias: dict[str, str] = {}  # new name of a tensor
    for node in reversed(result.graph.node):  # rename tensors that an Identity passes on to an output
        if node.op_type == "Identity" and node.output[0] in ends and node.input[0] in made - ends - alias.keys():
            alias[node.input[0]] = node.output[0]
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(result.graph.node):
        node.input[:] = [alias.get(name, name) for name in node.input]
        node.output[:] = [alias.get(name, name) for name in node.output]
        node.name = node.name or f"node_{number}"
        if node.op_type == "Identity" and node.input[0] == node.output[0]:
            continue
        same = node.op_type == "Cast" and kinds.get(node.input[0]) == helper.get_node_attr_value(node, "to")
        if (same or node.op_type == "Identity") and node.output[0] not in ends:
            alias[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


@dataclass
class _Graph:
    """Which node makes each tensor, and which nodes read it."""

    makers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    readers: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    opset: int = 17

    @classmethod
    def of(cls, model: onnx.ModelProto) -> "_Graph":
        graph = cls(constants={tensor.name: tensor for tensor in model.graph.initializer})
        graph.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        for node in model.graph.node:
            graph.makers |= dict.fromkeys(node.output, node)
            for name in node.input:
                graph.readers.setdefault(name, []).append(node)
        for value in model.graph.output:  # the graph's outputs count as readers
            graph.readers.setdefault(value.name, []).append(onnx.NodeProto())
        return graph

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 else None

    def is_one(self, name: str) -> bool:
        """Return whether a tensor is the constant 1, possibly expanded."""
        node = self.makers.get(name)
        if node is not None and node.op_type == "Expand":
            name = node.input[0]
        constant = self.constants.get(name)
        return constant is not None and bool((numpy_helper.to_array(constant) == 1).all())

    def ancestors(self, name: str, until: str = "") -> Iterator[onnx.NodeProto]:
        """Yield the nodes that `name` depends on, nearest first, without those behind `until` or behind a shape."""
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            tensor = waiting.pop(0)
            node = self.makers.get(tensor)
            if tensor == until or node is None or node.output[0] in seen:
                continue
            seen.add(node.output[0])
            yield node
            if node.op_type not in _SHAPES:
                waiting.extend(node.input)


def _match_warp(graph: _Graph, sample: onnx.NodeProto) -> WarpNode | None:
    """Return the warp of a GridSample node, or None if its grid isn't that of Eq. 1."""
    settings = {a.name: helper.get_attribute_value(a) for a in sample.attribute}
    if settings.get("mode", b"bilinear") not in (b"bilinear", b"linear"):
        return None
    if settings.get("padding_mode", b"zeros") != b"zeros" or settings.get("align_corners", 0) != 1:
        return None
    grid = sample.input[1]
    # All paths from the frames to the grid pass through the flow, so it is the nearest tensor that passes the check.
    read = (name for node in graph.ancestors(grid) if node.op_type not in _SHAPES for name in node.input)
    for flow in dict.fromkeys(name for name in read if name and name not in graph.constants):
        nodes = list(graph.ancestors(grid, until=flow))
        if _makes_grid(graph, nodes, flow, grid):
            return WarpNode(sample, flow, tuple(output for node in nodes for output in node.output))
    return None


def _makes_grid(graph: _Graph, nodes: list[onnx.NodeProto], flow: str, grid: str) -> bool:
    """Run the nodes on a random flow, and return whether the grid is (cell + flow) / ((size - 1) / 2) - 1.

    Besides the flow and constants, the nodes may read only the shape of the features, which is that of the flow.
    """
    made = {output for node in nodes for output in node.output}
    taken = {name for node in nodes for name in node.input if name} - made
    measured = {name for node in nodes if node.op_type in _SHAPES for name in node.input} - made - {flow}
    height, width = _PROBE
    inputs = {name: np.zeros((1, 1, height, width), np.float32) for name in measured}
    inputs[flow] = np.random.default_rng(0).uniform(-9, 9, (1, 2, height, width)).astype(np.float32)
    if not taken <= {*inputs, *graph.constants}:
        return False
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(value.shape)) for name, value in inputs.items()]
    constants = [graph.constants[name] for name in sorted(taken & graph.constants.keys())]
    output = helper.make_tensor_value_info(grid, TensorProto.FLOAT, None)
    try:
        draft = helper.make_graph(
            topological_order(nodes, {*inputs, *graph.constants}), "grid", ends, [output], constants
        )
        model = helper.make_model(draft, opset_imports=[helper.make_opsetid("", graph.opset)], ir_version=8)
        [found] = ReferenceEvaluator(model).run(None, inputs)
    except Exception:  # noqa: BLE001 - the nodes can't run on a flow, so it isn't one
        return False
    expected = _grid(inputs[flow])
    return np.shape(found) == expected.shape and bool(np.allclose(found, expected, atol=1e-5))


def _grid(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the grid of Eq. 1 in GridSample's units, where -1 and 1 are the centres of the first and last cell."""
    height, width = flow.shape[2:]
    x = (flow[:, 0] + np.arange(width)) / ((width - 1) / 2) - 1
    y = (flow[:, 1] + np.arange(height)[:, np.newaxis]) / ((height - 1) / 2) - 1
    return np.stack((x, y), axis=-1).astype(np.float32)


def topological_order(nodes: list[onnx.NodeProto], known: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes in an order in which each follows those that it reads."""
    known = known | {""}
    ordered: list[onnx.NodeProto] = []
    while len(ordered) < len(nodes):
        ready = [node for node in nodes if known.issuperset(node.input) and not known.issuperset(node.output)]
        if not ready:
            raise ValueError("the graph has a cycle, or its nodes read a tensor that no node makes")
        ordered += ready
        known |= {output for node in ready for output in node.output}
    return ordered


def prune_unused(nodes: list[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes that any of the wanted tensors depends on, in their order."""
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted |= set(node.input)
    return kept[::-1]


def static_shapes(model: onnx.ModelProto) -> Mapping[str, tuple[int, ...]]:
    """Return the static shapes of all tensors for which ONNX can infer them."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes: dict[str, tuple[int, ...]] = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes
