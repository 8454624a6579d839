"""Nodes that are added to a graph one by one."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


class NodeBuilder:
    """Appends nodes to a copy of a model. Their tensors' names begin with a prefix that the model doesn't use."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Copy the model."""
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        names = {name for node in model.graph.node for name in (*node.input, *node.output)}
        names |= {value.name for value in (*model.graph.input, *model.graph.output, *model.graph.initializer)}
        self._prefix = "result/"
        while any(name.startswith(self._prefix) for name in names):
            self._prefix += "_/"
        self._count = 0

    def constant(self, value: NDArray[Any] | list[int] | list[float] | float) -> str:
        """Add a constant; lists and numbers become int64 or float32."""
        array = np.asarray(value)
        if isinstance(value, list | int | float):
            array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        name = self._name("constant")
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name."""
        name = self._name(operator.lower())
        self.model.graph.node.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def split(self, tensor: str, sizes: list[int], axis: int) -> list[str]:
        """Split a tensor into parts of given sizes."""
        names = [self._name("split") for _ in sizes]
        inputs = [tensor, self.constant(sizes)]
        self.model.graph.node.append(helper.make_node("Split", inputs, names, name=names[0], axis=axis))
        return names

    def part(self, tensor: str, first: int, count: int, axis: int) -> str:
        """Take `count` slices of a tensor along an axis."""
        bounds = [self.constant([n]) for n in (first, first + count, axis)]
        return self.node("Slice", tensor, *bounds)

    def reshape(self, tensor: str, *shape: int) -> str:
        """Give a tensor another shape."""
        return self.node("Reshape", tensor, self.constant(list(shape)))

    def concat(self, tensors: list[str], axis: int) -> str:
        """Join tensors along an axis."""
        return tensors[0] if len(tensors) == 1 else self.node("Concat", *tensors, axis=axis)

    def reduce(self, operator: str, tensor: str, axis: int, keepdims: bool = True) -> str:
        """Add ReduceMax and the like, whose axes are an input from opset 18 on (ReduceSum: 13)."""
        if self.opset >= 18 or operator == "ReduceSum":
            return self.node(operator, tensor, self.constant([axis]), keepdims=int(keepdims))
        return self.node(operator, tensor, axes=[axis], keepdims=int(keepdims))

    def activate(self, tensor: str, activation: str, axis: int) -> str:
        """Apply `sigmoid`, `softmax` along an axis, or `none`."""
        if activation == "sigmoid":
            return self.node("Sigmoid", tensor)
        return self.node("Softmax", tensor, axis=axis) if activation == "softmax" else tensor

    def finish(self, **outputs: tuple[str, list[int | str]]) -> onnx.ModelProto:
        """Make these tensors the model's only float outputs, and remove what they don't need.

        Args:
            outputs: By name: the tensor and its shape.
        """
        graph = self.model.graph
        del graph.output[:]
        renamed = {name: self._free(name) for name in outputs}
        for name, (tensor, shape) in outputs.items():
            inputs = [renamed.get(tensor, tensor)]
            graph.node.append(helper.make_node("Identity", inputs, [name], name=self._name("identity")))
            graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        _prune(graph)
        return self.model

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{self._prefix}{kind}_{self._count}"

    def _free(self, name: str) -> str:
        """Rename a tensor of the model that has the name of a new output, and return its new name."""
        graph = self.model.graph
        replacement = f"{self._prefix}file/{name}"
        for node in graph.node:
            for names in (node.input, node.output):
                for n, found in enumerate(names):
                    if found == name:
                        names[n] = replacement
        for value in (*graph.initializer, *graph.value_info):
            if value.name == name:
                value.name = replacement
        return replacement


def _prune(graph: onnx.GraphProto) -> None:
    """Remove the nodes, initializers and descriptions of tensors that no output needs."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            needed.update(name for a in node.attribute for name in _outer(a))
            kept.append(node)
    kept.reverse()
    del graph.node[:]
    graph.node.extend(kept)
    for values in (graph.initializer, graph.value_info):
        left = [value for value in values if value.name in needed]
        del values[:]
        values.extend(left)


def _outer(attribute: onnx.AttributeProto) -> set[str]:
    """Return the names that the graphs of an attribute (of If and Loop) read."""
    graphs = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
    nodes = [node for graph in graphs for node in graph.node]
    names = {name for node in nodes for name in node.input} | {o.name for graph in graphs for o in graph.output}
    return names.union(*(_outer(a) for node in nodes for a in node.attribute)) if nodes else names
