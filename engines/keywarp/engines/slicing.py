"""Cut the graph of a key frame into slices, which run one after another, with other frames in between.

A slice takes the same whole tensors that the slices before it gave, so that slices give what the whole graph gives.
They are cut where they take about the same time each, and where few bytes go from one to the next: behind the blocks of
a residual network. What the head adds to the features is a slice of its own, which isn't needed to propagate features.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from keywarp.engines.fusion import PLAIN, FusedGraph, GraphStyle

SLICES: Final = 8  # a key frame takes the time of about so many propagated frames, and a slice thus that of one
SMALLEST: Final = 3e9  # multiply-adds of a slice, or what takes as long: about 4 ms on two cores, as a propagated frame
# What is slow besides multiplying, in multiply-adds of the same time. Found by timing slices of ResNet-101 in int8.
_ELEMENT: Final = 200  # an element of a layer's result
_BYTE: Final = 200  # a byte that goes from one slice to the next
_LEAST: Final = 0.25  # of the usual slice, that a slice takes
_LAYERS: Final = ("Conv", "ConvTranspose", "MatMul", "Gemm")


def slice_graph(graph: FusedGraph, slices: int, style: GraphStyle = PLAIN) -> tuple[FusedGraph, ...]:
    """Cut the graph of a key frame.

    Args:
        graph: The graph, see `fuse_key`. It isn't changed.
        slices: The number of slices, without that of the head. There are fewer, or the graph stays whole, if it can't
            be cut so often, or if slices would be shorter than `SMALLEST`, since each has a cost of its own.
        style: How the graph was fused. Like feature maps, others go from slice to slice with channels last.

    Returns:
        The slices, in order. Each takes inputs of the graph, and what slices before it gave. All of them but the last
        give what stays on the device, the last one the rest.
    """
    slices = max(1, min(slices, int(_Network(graph).features_cost / SMALLEST)))
    network = _Network(_divide(graph, slices))
    if slices == 1 or not network.are_known(network.crossing(network.features)):
        return (graph,)
    ends = [*network.cuts(slices), network.features, len(network.nodes)]
    cut: list[FusedGraph] = []
    forms: dict[str, _Form] = {}  # the tensors that earlier slices gave
    start = 0
    for number, end in enumerate(dict.fromkeys(ends)):
        outputs = [name for name in network.outputs if start <= network.made_at(name) < end]
        new = {name: _Form.of(network, name, style) for name in network.crossing(end)}
        if end == network.features:  # the head takes the features in the form in which they stay on the device
            new |= {name: form for name, form in network.given(style.channels_last) if name in new}
        new = {name: form for name, form in new.items() if name not in forms}
        model = network.extract(f"{graph.model.graph.name}_{number}", outputs, forms, new)
        kept = {form.name for form in new.values()} | graph.resident.intersection(outputs)
        cut.append(FusedGraph(model, frozenset(kept)))
        forms |= new
        start = end
    return tuple(cut)


@dataclass(frozen=True, slots=True)
class _Form:
    """How a tensor goes from one slice to another."""

    name: str
    shape: tuple[int, ...]  # of the tensor within a graph
    type: int  # the same
    rows: bool = False  # whether it goes as (1, h w, c), or (h w, c) if it is an output
    cast: int | None = None  # the type as which it goes, if that is another one
    output: bool = False  # whether it is an output of the whole graph, too

    @classmethod
    def of(cls, network: "_Network", name: str, style: GraphStyle) -> "_Form":
        shape, kind = network.shapes[name], network.types[name]
        cast = style.inner_type if kind == TensorProto.FLOAT and style.inner_type != kind else None
        # Without a cast, OpenVINO copies nothing in this order. With one, it does, and not if the map goes as it is.
        rows = style.channels_last and len(shape) == 4 and shape[0] == 1 and cast is None
        return cls(f"{name}/given", shape, kind, rows, cast)

    @property
    def value(self) -> onnx.ValueInfoProto:
        batch, channels, *places = self.shape if self.rows else (0, 0)
        rows = (prod(places), channels) if self.output else (batch, prod(places), channels)
        shape = rows if self.rows else self.shape
        return helper.make_tensor_value_info(self.name, self.cast or self.type, shape)

    def give(self, tensor: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Return what makes this form of a tensor, and its constants."""
        if self.rows:
            batch, channels, *places = self.shape
            planes = _constant(f"{self.name}/planes", (batch, channels, prod(places)))
            return [
                helper.make_node("Reshape", [tensor, planes.name], [f"{self.name}/reshaped"]),
                helper.make_node("Transpose", [f"{self.name}/reshaped"], [self.name], perm=[0, 2, 1]),
            ], [planes]
        if self.cast:
            return [helper.make_node("Cast", [tensor], [self.name], to=self.cast)], []
        return [helper.make_node("Identity", [tensor], [self.name])], []

    def take(self, tensor: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Return what makes the tensor of this form, and its constants."""
        if self.rows:
            shape = _constant(f"{self.name}/shape", self.shape)
            perm = [1, 0] if self.output else [0, 2, 1]
            return [
                helper.make_node("Transpose", [self.name], [f"{self.name}/transposed"], perm=perm),
                helper.make_node("Reshape", [f"{self.name}/transposed", shape.name], [tensor]),
            ], [shape]
        if self.cast:
            return [helper.make_node("Cast", [self.name], [tensor], to=self.type)], []
        return [helper.make_node("Identity", [self.name], [tensor])], []


class _Network:
    """A graph whose nodes are in order: first what leads to the features, then the head."""

    def __init__(self, graph: FusedGraph) -> None:
        self.graph = onnx.shape_inference.infer_shapes(graph.model).graph
        self._opsets = graph.model.opset_import
        self.outputs = [output.name for output in self.graph.output]
        self._resident = graph.resident
        self._values = {v.name: v for v in (*self.graph.value_info, *self.graph.input, *self.graph.output)}
        self._initializers = {constant.name: constant for constant in self.graph.initializer}
        self._producers = {name: node for node in self.graph.node for name in node.output}
        self.shapes = dict(self._known_shapes())
        self.types = {name: value.type.tensor_type.elem_type for name, value in self._values.items()}
        self._constants = set(self._initializers)
        for node in self.graph.node:
            if all(name in self._constants for name in node.input if name):
                self._constants.update(node.output)
        nodes = [node for node in self.graph.node if not self._constants.issuperset(node.output)]
        needed = self._reached(graph.resident, frozenset())[0]
        first = [node for node in nodes if node.output[0] in needed]
        self.features = len(first)  # nodes that lead to them
        self.nodes = first + [node for node in nodes if node.output[0] not in needed]
        self._made_at = {name: place for place, node in enumerate(self.nodes) for name in node.output}
        self._used_until = {name: place for place, node in enumerate(self.nodes) for name in node.input}

    @property
    def features_cost(self) -> float:
        """About how long the features take, as the number of multiply-adds of the same time."""
        return sum(map(self.cost, self.nodes[: self.features]))

    def made_at(self, name: str) -> int:
        """Return the place of the node that makes a tensor."""
        return self._made_at[name]

    def crossing(self, end: int) -> list[str]:
        """Return the tensors that are made before a place among the nodes, and used behind it."""
        made = (name for name, place in self._made_at.items() if place < end <= self._used_until.get(name, -1))
        return list(dict.fromkeys(self._quantized(name) for name in made))

    def _quantized(self, name: str) -> str:
        """Return the tensor of bytes that a tensor comes from: only behind that, runtimes compute in int8."""
        node = self._producers[name]
        return node.input[0] if node.op_type == "DequantizeLinear" and node.input[0] in self._made_at else name

    def cuts(self, slices: int) -> Sequence[int]:
        """Return the places between the nodes of the features at which slices of about the same time end."""
        costs = np.cumsum([self.cost(node) for node in self.nodes[: self.features]])
        # Branches of a block run in one slice if they can: with a border between, runtimes fuse less.
        share = costs[-1] / slices
        borders = {
            end: share / 4 * (len(crossing) - 1) + _BYTE * self._bytes(crossing)
            for end in range(1, self.features)
            if (crossing := self.crossing(end)) and self.are_known(crossing)
        }
        cuts: list[int] = []
        for number in range(1, slices):
            wanted, before = share * number, costs[cuts[-1] - 1] if cuts else 0
            found = [
                (int(50 * (abs(costs[end - 1] - wanted) + price) / share), -end)  # the last one is behind activations
                for end, price in borders.items()
                if min(costs[end - 1] - before, costs[-1] - costs[end - 1]) > _LEAST * share
            ]
            if found:
                cuts.append(-min(found)[1])
        return cuts

    def given(self, channels_last: bool) -> Iterator[tuple[str, _Form]]:
        """Yield tensors that an output which stays on the device is another form of, with this form."""
        for output in self._resident:
            name = self._passed_on(output)
            if channels_last and (node := self._producers[name]).op_type == "Reshape":
                planes = self._producers[self._producers[node.input[0]].input[0]]
                name = planes.input[0]
                yield name, _Form(output, self.shapes[name], self.types[name], rows=True, output=True)
            elif name in self.shapes:
                yield name, _Form(output, self.shapes[name], self.types[name], output=True)

    def _passed_on(self, name: str) -> str:
        """Return the tensor that is passed on under a name."""
        while (node := self._producers.get(name)) is not None and node.op_type == "Identity":
            name = node.input[0]
        return name

    def extract(
        self, name: str, outputs: Sequence[str], taken: Mapping[str, _Form], given: Mapping[str, _Form]
    ) -> onnx.ModelProto:
        """Return the part of the graph that makes some outputs and tensors of others."""
        reached, edge = self._reached([*outputs, *given], frozenset(taken))
        nodes = [node for node in (*self._constant_nodes(), *self.nodes) if node.output[0] in reached]
        readers = {node.input[0]: node for node in nodes if node.op_type == "DequantizeLinear"}
        initializers = [constant for constant in self.graph.initializer if constant.name in edge]
        inputs = [value for value in self.graph.input if value.name in edge]
        before: list[onnx.NodeProto] = []
        for tensor, form in taken.items():
            if tensor in edge:
                added, constants = form.take(tensor)
                reader = readers.get(tensor)
                if reader and not any(node.op_type == "QuantizeLinear" for node in nodes):
                    # OpenVINO computes in int8 only if something is quantised in a graph. This changes no value.
                    added[-1].output[0] = f"{form.name}/quantized"
                    floats = f"{form.name}/floats"
                    for operator, source, result in (
                        ("DequantizeLinear", added[-1].output[0], floats),
                        ("QuantizeLinear", floats, tensor),
                    ):
                        added.append(helper.make_node(operator, [source, *reader.input[1:]], [result]))
                before.extend(added)
                initializers.extend(constants)
                inputs.append(form.value)
        made = [self._values[output] for output in outputs]
        for tensor, form in given.items():
            if not form.output:
                added, constants = form.give(tensor)
                nodes.extend(added)
                initializers.extend(constants)
                made.append(form.value)
        graph = helper.make_graph([*before, *nodes], name, inputs, made, initializers)
        return helper.make_model(graph, opset_imports=self._opsets, ir_version=8, producer_name="keywarp")

    def _constant_nodes(self) -> list[onnx.NodeProto]:
        return [node for node in self.graph.node if self._constants.issuperset(node.output)]

    def _reached(self, tensors: Sequence[str] | frozenset[str], known: frozenset[str]) -> tuple[set[str], set[str]]:
        """Return the first outputs of the nodes that make some tensors, and what those take that no node makes."""
        waiting, reached, edge = list(tensors), set[str](), set[str]()
        while waiting:
            name = waiting.pop()
            node = None if name in known else self._producers.get(name)
            if node is None:
                edge.add(name)
            elif node.output[0] not in reached:
                reached.add(node.output[0])
                waiting.extend(name for name in node.input if name)
        return reached, edge

    def cost(self, node: onnx.NodeProto) -> float:
        """Return about how long a node takes, as the number of multiply-adds of the same time."""
        if node.op_type not in _LAYERS:  # which runtimes join with a layer, mostly
            return prod(self.shapes.get(node.output[0], (0,)))
        image, weights, result = (self.shapes.get(name, ()) for name in (*node.input[:2], node.output[0]))
        products = {
            "Conv": prod(result) * prod(weights[1:]),
            "ConvTranspose": prod(image) * prod(weights[1:]),
        }.get(node.op_type, prod(result) * (image[-1] if image else 0))
        return products + _ELEMENT * prod(result) if result and weights else 0.0

    def _bytes(self, tensors: Sequence[str]) -> int:
        return sum(
            helper.tensor_dtype_to_np_dtype(self.types[name]).itemsize * prod(self.shapes[name]) for name in tensors
        )

    def are_known(self, tensors: Sequence[str]) -> bool:
        """Return whether shapes and types of tensors are known."""
        return all(name in self.shapes and self.types.get(name) for name in tensors)

    def _known_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for name, constant in self._initializers.items():
            yield name, tuple(constant.dims)
        for name, value in self._values.items():
            sides = value.type.tensor_type.shape.dim
            if sides and all(side.dim_value > 0 for side in sides):
                yield name, tuple(side.dim_value for side in sides)


def _divide(graph: FusedGraph, slices: int) -> FusedGraph:
    """Divide convolutions that take longer than a slice into several, of which each gives a part of the channels."""
    network = _Network(graph)
    layers = network.nodes[: network.features]
    share = max(1.0, network.features_cost / slices)
    counts = {node.output[0]: round(network.cost(node) / share) for node in layers if _can_be_divided(node)}
    divided = onnx.ModelProto()
    divided.CopyFrom(graph.model)
    nodes = list(divided.graph.node)
    del divided.graph.node[:]
    parts = _Parts(nodes, divided.graph)
    for node in nodes:
        result, count = node.output[0], counts.get(node.output[0], 1)
        constants = [parts.of(name, count) for name in node.input[1:]] if count > 1 else []
        if not constants or not all(constants):
            divided.graph.node.append(node)
            continue
        names = [f"{result}/{part}" for part in range(count)]
        for name, constant in zip(names, zip(*constants, strict=True), strict=True):
            part = divided.graph.node.add()
            part.CopyFrom(node)
            part.name, part.input[1:], part.output[:] = name, constant, [name]
        divided.graph.node.append(helper.make_node("Concat", names, [result], axis=1))
    return FusedGraph(divided, graph.resident)


def _can_be_divided(node: onnx.NodeProto) -> bool:
    return node.op_type == "Conv" and not any(a.name == "group" and a.i > 1 for a in node.attribute)


class _Parts:
    """Parts of weights, biases, and the scales of both, each for some of the channels."""

    def __init__(self, nodes: Sequence[onnx.NodeProto], graph: onnx.GraphProto) -> None:
        self._producers = {node.output[0]: node for node in nodes}
        self._constants = {constant.name: constant for constant in graph.initializer}
        self._graph = graph  # to which they are added
        self._found: dict[tuple[str, int], list[str]] = {}

    def of(self, name: str, count: int) -> list[str]:
        """Return the names of the parts of a constant, or none if it can't be divided."""
        if (name, count) not in self._found:
            self._found[name, count] = self._divide(name, count)
        return self._found[name, count]

    def _divide(self, name: str, count: int) -> list[str]:
        names = [f"{name}/{part}" for part in range(count)]
        if constant := self._constants.get(name):
            values = numpy_helper.to_array(constant)
            if values.size == 1:  # the scale of all channels
                return [name] * count
            divided = zip(np.array_split(values, count), names, strict=True)
            self._graph.initializer.extend(numpy_helper.from_array(part, part_name) for part, part_name in divided)
            return names
        node = self._producers.get(name)
        if node is None or node.op_type not in ("Identity", "Cast", "DequantizeLinear"):
            return []
        inputs = [self.of(given, count) for given in node.input]
        if not all(inputs):
            return []
        for part, given in zip(names, zip(*inputs, strict=True), strict=True):
            added = self._graph.node.add()
            added.CopyFrom(node)
            added.name, added.input[:], added.output[:] = part, given, [part]
        return names


def _constant(name: str, values: Sequence[int]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)
