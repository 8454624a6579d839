"""An ONNX graph as nodes and tensors: who makes a tensor, who reads it, which tensors depend on the image.

A node with control flow reads what the graphs inside of it read, too.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from heapq import heapify, heappop, heappush

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from keywarp.importing.errors import ImportingError

IMAGE = "image"
IR_VERSION = 8


class Graph:
    """A view of a model's graph, whose nodes are in topological order.

    Attributes:
        model: The model.
        nodes: Its nodes.
        reads: The tensors that each node reads, those inside of control flow included.
        outputs: The names of its outputs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.reads = [reads_of(node) for node in self.nodes]
        self.outputs = [output.name for output in model.graph.output]

    @cached_property
    def producers(self) -> dict[str, int]:
        """The index of the node that makes each tensor."""
        return {name: index for index, node in enumerate(self.nodes) for name in node.output if name}

    @cached_property
    def consumers(self) -> dict[str, list[int]]:
        """The indices of the nodes that read each tensor."""
        found: dict[str, list[int]] = {}
        for index, names in enumerate(self.reads):
            for name in names:
                found.setdefault(name, []).append(index)
        return found

    @cached_property
    def initializers(self) -> dict[str, TensorProto]:
        """The constants by name."""
        return {initializer.name: initializer for initializer in self.model.graph.initializer}

    @cached_property
    def types(self) -> dict[str, int]:
        """The element type of each tensor that has one, as a value of `TensorProto.DataType`."""
        known = {value.name: value.type.tensor_type.elem_type for value in self._values()}
        return {**known, **{name: tensor.data_type for name, tensor in self.initializers.items()}}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of known rank. A dimension that depends on the image's content is -1."""
        found = {}
        for value in self._values():
            if value.type.tensor_type.HasField("shape"):
                dims = value.type.tensor_type.shape.dim
                found[value.name] = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)
        return {**found, **{name: tuple(tensor.dims) for name, tensor in self.initializers.items()}}

    @cached_property
    def moving(self) -> frozenset[str]:
        """The tensors that depend on the graph's inputs."""
        found = {value.name for value in self.model.graph.input} - set(self.initializers)
        for node, names in zip(self.nodes, self.reads, strict=True):
            if not found.isdisjoint(names):
                found.update(node.output)
        return frozenset(found - {""})

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """Return a constant's value, or None if the tensor isn't an initializer."""
        tensor = self.initializers.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def needed(self, outputs: Iterable[str], given: Collection[str] = ()) -> list[int]:
        """Return the nodes that compute tensors, in order.

        Args:
            outputs: The tensors' names.
            given: The names of tensors that are known, so that their producers aren't needed for them.
        """
        found: set[int] = set()
        waiting = [name for name in outputs if name not in given]
        while waiting:
            index = self.producers.get(waiting.pop())
            if index is not None and index not in found:
                found.add(index)
                waiting.extend(name for name in self.reads[index] if name not in given)
        return sorted(found)

    def part(
        self,
        name: str,
        nodes: Sequence[onnx.NodeProto],
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        constants: Sequence[TensorProto] = (),
    ) -> onnx.ModelProto:
        """Return a model of some nodes, with the constants that they read.

        Args:
            name: The name of its graph.
            nodes: Nodes of this graph, and others, in topological order.
            inputs: Its inputs.
            outputs: Its outputs.
            constants: Constants that aren't in this graph.
        """
        read = {tensor for node in nodes for tensor in reads_of(node)} | {output.name for output in outputs}
        own = [tensor for key, tensor in self.initializers.items() if key in read]
        graph = helper.make_graph(list(nodes), name, list(inputs), list(outputs), [*own, *constants])
        return helper.make_model(
            graph, opset_imports=self.model.opset_import, ir_version=IR_VERSION, producer_name="keywarp"
        )

    def value(self, name: str) -> onnx.ValueInfoProto:
        """Return a tensor's name, type and shape.

        Raises:
            ImportingError: If its type isn't known.
        """
        if name not in self.types:
            raise ImportingError(f"the type of tensor {name!r} isn't known")
        shape = self.shapes.get(name)
        dims = None if shape is None else [None if side < 0 else side for side in shape]
        return helper.make_tensor_value_info(name, self.types[name], dims)

    def _values(self) -> Iterator[onnx.ValueInfoProto]:
        graph = self.model.graph
        for values in (graph.input, graph.value_info, graph.output):
            yield from values


def reads_of(node: onnx.NodeProto) -> tuple[str, ...]:
    """Return the tensors that a node reads, those that graphs inside of it take from outside included."""
    names = dict.fromkeys(name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            own = {value.name for value in (*graph.input, *graph.initializer)}
            own.update(name for inner in graph.node for name in inner.output)
            taken = (name for inner in graph.node for name in reads_of(inner))
            names |= dict.fromkeys(name for name in (*taken, *(o.name for o in graph.output)) if name not in own)
    return tuple(names)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put a graph's nodes in topological order, in place; some exporters append nodes at the end.

    Raises:
        ImportingError: If they form a cycle.
    """
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    sources = [{producers[name] for name in reads_of(node) if name in producers} for node in graph.node]
    if all(source < index for index, found in enumerate(sources) for source in found):
        return
    readers: dict[int, list[int]] = {}
    for index, found in enumerate(sources):
        for source in found:
            readers.setdefault(source, []).append(index)
    missing = [len(found) for found in sources]
    ready = [index for index, count in enumerate(missing) if not count]
    heapify(ready)
    order = []
    while ready:
        order.append(heappop(ready))
        for reader in readers.get(order[-1], ()):
            missing[reader] -= 1
            if not missing[reader]:
                heappush(ready, reader)
    if len(order) < len(graph.node):
        node = graph.node[min(set(range(len(graph.node))) - set(order))]
        raise ImportingError(f"its nodes form a cycle at {node.name or node.op_type!r}: the file is damaged")
    nodes = [graph.node[index] for index in order]
    del graph.node[:]
    graph.node.extend(nodes)
