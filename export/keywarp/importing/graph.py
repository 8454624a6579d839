"""An ONNX graph as nodes and tensors: who makes a tensor, who reads it, which tensors depend on the image."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from keywarp.importing.errors import ImportingError

IMAGE = "image"
IR_VERSION = 8


class Graph:
    """A view of a model's graph, whose nodes are in topological order and without control flow.

    Attributes:
        model: The model.
        nodes: Its nodes.
        outputs: The names of its outputs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.outputs = [output.name for output in model.graph.output]

    @cached_property
    def producers(self) -> dict[str, int]:
        """The index of the node that makes each tensor."""
        return {name: index for index, node in enumerate(self.nodes) for name in node.output if name}

    @cached_property
    def consumers(self) -> dict[str, list[int]]:
        """The indices of the nodes that read each tensor."""
        found: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for name in dict.fromkeys(node.input):
                if name:
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
        for node in self.nodes:
            if any(name in found for name in node.input):
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
                waiting.extend(name for name in self.nodes[index].input if name and name not in given)
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
        read = {tensor for node in nodes for tensor in node.input} | {output.name for output in outputs}
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
