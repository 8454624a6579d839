"""The warp in a graph: GridSample and the grid before it, replaced by one `KeywarpWarp` node.

In ONNX the warp is some fifty nodes: coordinates of the cells, plus the flow, normalised to -1..1, GridSample, times
the scale field. The plugin does it in one pass over the features. Nothing is replaced on trust: the nodes that make the
grid are run, on the CPU, on a random flow, and must give what Eq. 1 to 3 of the paper say.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

WARP = "KeywarpWarp"  # inputs: features, flow, and maybe scale; output: warped
_PROBE = (5, 7)  # cells of the maps that the proof runs on
_SHAPES = frozenset({"Shape", "Size"})  # operators that look at no value


@dataclass(frozen=True, slots=True)
class WarpNode:
    """A GridSample node whose grid is known to be Eq. 1's."""

    sample: onnx.NodeProto
    flow: str  # the tensor (N, 2, H, W), in cells of the features
    grid: tuple[str, ...]  # the outputs of the nodes from `flow` to the grid


def find_warps(model: onnx.ModelProto) -> list[WarpNode]:
    """The GridSample nodes of a plain graph (see `plain`) that warp by a flow in cells."""
    graph = _Graph.of(model)
    return [warp for node in model.graph.node if node.op_type == "GridSample" if (warp := _read(graph, node))]


def insert_plugin(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Replace the warps of a graph by `KeywarpWarp` nodes.

    Args:
        model: Plain, with static shapes; it stays as it is.

    Returns:
        The new graph, and how many warps were replaced. A GridSample that is something else stays.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = _Graph.of(result)
    shapes = static_shapes(model)
    replaced: dict[str, onnx.NodeProto] = {}  # by the output of the node that a warp takes the place of
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
    result.graph.node.extend(needed(nodes, {value.name for value in result.graph.output}))
    return result, len(replaced)


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph without nodes that only hand a tensor on, and with a name for each that has none."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    ends = {value.name for value in model.graph.output}
    made = {output for node in model.graph.node for output in node.output}
    alias: dict[str, str] = {}  # what a tensor is called instead
    for node in reversed(result.graph.node):  # an end takes the name of what it hands on, where that has no other
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
    """Who makes and who reads each tensor."""

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
        for value in model.graph.output:  # an end of the graph reads it too
            graph.readers.setdefault(value.name, []).append(onnx.NodeProto())
        return graph

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 else None

    def is_one(self, name: str) -> bool:
        """Whether a tensor is 1 everywhere: a constant, maybe expanded."""
        node = self.makers.get(name)
        if node is not None and node.op_type == "Expand":
            name = node.input[0]
        constant = self.constants.get(name)
        return constant is not None and bool((numpy_helper.to_array(constant) == 1).all())

    def ancestors(self, name: str, until: str = "") -> Iterator[onnx.NodeProto]:
        """The nodes whose values reach `name`, nearest first, not looking behind `until`, nor behind a shape."""
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


def _read(graph: _Graph, sample: onnx.NodeProto) -> WarpNode | None:
    """What a GridSample node's grid is made from, if that is proven."""
    settings = {a.name: helper.get_attribute_value(a) for a in sample.attribute}
    if settings.get("mode", b"bilinear") not in (b"bilinear", b"linear"):
        return None
    if settings.get("padding_mode", b"zeros") != b"zeros" or settings.get("align_corners", 0) != 1:
        return None
    grid = sample.input[1]
    # All paths from the frames to the grid lead through the flow: it is the nearest tensor that proves right.
    read = (name for node in graph.ancestors(grid) if node.op_type not in _SHAPES for name in node.input)
    for flow in dict.fromkeys(name for name in read if name and name not in graph.constants):
        nodes = list(graph.ancestors(grid, until=flow))
        if _makes_grid(graph, nodes, flow, grid):
            return WarpNode(sample, flow, tuple(output for node in nodes for output in node.output))
    return None


def _makes_grid(graph: _Graph, nodes: list[onnx.NodeProto], flow: str, grid: str) -> bool:
    """Run the nodes on a random flow: is the grid (cell + flow) / ((size - 1) / 2) - 1?

    Of whatever else they take, they may only take the shape: of the features, which are as high and wide as the flow.
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
        draft = helper.make_graph(in_order(nodes, {*inputs, *graph.constants}), "grid", ends, [output], constants)
        model = helper.make_model(draft, opset_imports=[helper.make_opsetid("", graph.opset)], ir_version=8)
        [found] = ReferenceEvaluator(model).run(None, inputs)
    except Exception:  # noqa: BLE001 - whatever such nodes can't do with a flow: then it is none
        return False
    expected = _grid(inputs[flow])
    return np.shape(found) == expected.shape and bool(np.allclose(found, expected, atol=1e-5))


def _grid(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Eq. 1 in GridSample's terms: -1 and 1 are the centres of the first and last cell."""
    height, width = flow.shape[2:]
    x = (flow[:, 0] + np.arange(width)) / ((width - 1) / 2) - 1
    y = (flow[:, 1] + np.arange(height)[:, np.newaxis]) / ((height - 1) / 2) - 1
    return np.stack((x, y), axis=-1).astype(np.float32)


def in_order(nodes: list[onnx.NodeProto], known: set[str]) -> list[onnx.NodeProto]:
    """The nodes with each after those that it reads."""
    known = known | {""}
    ordered: list[onnx.NodeProto] = []
    while len(ordered) < len(nodes):
        ready = [node for node in nodes if known.issuperset(node.input) and not known.issuperset(node.output)]
        if not ready:
            raise ValueError("nodes read what nothing makes")
        ordered += ready
        known |= {output for node in ready for output in node.output}
    return ordered


def needed(nodes: list[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """The nodes that something wanted depends on, in their order."""
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted |= set(node.input)
    return kept[::-1]


def static_shapes(model: onnx.ModelProto) -> Mapping[str, tuple[int, ...]]:
    """The static shapes, as far as ONNX can tell them."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes: dict[str, tuple[int, ...]] = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes
