"""Passes over fused graphs that leave out work without changing a result.

Runtimes don't find these themselves. docs/benchmarks.md has what each of them gains.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

_PASSED_ON: Final = ("Identity", "Cast", "DequantizeLinear")  # operators that keep the shape of their first input


def apply_passes(graph: onnx.GraphProto) -> None:
    """Apply all passes to a fused graph, in place.

    Args:
        graph: The graph. Nodes that nothing uses any more are removed.
    """
    replaced = dict([*_joined_and_split(graph), *_scaled_by_one(graph)])
    if not replaced:
        return
    for node in graph.node:
        node.input[:] = [_final(name, replaced) for name in node.input]
    _remove_unused(graph)


def _joined_and_split(graph: onnx.GraphProto) -> Iterator[tuple[str, str]]:
    """Yield the outputs of splits that take apart again what a concatenation joined, with what was joined.

    Heads that were cut in two between the features and the maps' last steps have such a pair: several maps become one
    tensor of the graph, and several outputs again.
    """
    producers = {name: node for node in graph.node for name in node.output}
    constants = {constant.name: constant for constant in graph.initializer}
    for split in graph.node:
        if split.op_type != "Split" or len(split.input) < 2:
            continue
        joined = _source(split.input[0], producers)
        sizes = _constant(split.input[1], producers, constants)
        if joined is None or joined.op_type != "Concat" or sizes is None or _axis(split) != _axis(joined):
            continue
        parts = [_size(name, _axis(joined), producers, constants) for name in joined.input]
        if parts == sizes.tolist():
            yield from zip(split.output, joined.input, strict=True)


def _scaled_by_one(graph: onnx.GraphProto) -> Iterator[tuple[str, str]]:
    """Yield products with a field of ones, with the other factor.

    The warp multiplies by a scale field, which is one everywhere unless the flow network gives it.
    """
    producers = {name: node for node in graph.node for name in node.output}
    constants = {constant.name: constant for constant in graph.initializer}
    for product in graph.node:
        if product.op_type != "Mul":
            continue
        factors = [_source(name, producers) for name in product.input]
        for field, other, result in ((0, factors[1], product.input[1]), (1, factors[0], product.input[0])):
            expanded = factors[field]
            if expanded is None or expanded.op_type != "Expand" or other is None or other.op_type != "GridSample":
                continue  # a map that was sampled has the field's own size, so nothing is broadcast
            value = _constant(expanded.input[0], producers, constants)
            if value is not None and value.size == 1 and value.item() == 1:
                yield product.output[0], result


def _source(name: str, producers: Mapping[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    """Return the node that a tensor comes from, behind nodes that pass it on, or None for inputs and constants."""
    node = producers.get(name)
    while node is not None and node.op_type == "Identity":
        node = producers.get(node.input[0])
    return node


def _constant(
    name: str, producers: Mapping[str, onnx.NodeProto], constants: Mapping[str, onnx.TensorProto]
) -> np.ndarray | None:
    """Return the value of a tensor that is a constant, or None."""
    if name in constants:
        return numpy_helper.to_array(constants[name])
    node = producers.get(name)
    if node is None:
        return None
    if node.op_type == "Identity":
        return _constant(node.input[0], producers, constants)
    if node.op_type != "Constant" or node.attribute[0].name != "value":
        return None
    return numpy_helper.to_array(node.attribute[0].t)


def _size(
    name: str, axis: int, producers: Mapping[str, onnx.NodeProto], constants: Mapping[str, onnx.TensorProto]
) -> int | None:
    """Return the number of channels of a convolution's result, or None for other axes and tensors."""
    node = _source(name, producers)
    if node is None or node.op_type != "Conv" or axis != 1:
        return None
    weight = node.input[1]
    while weight not in constants:
        passed = producers.get(weight)
        if passed is None or passed.op_type not in _PASSED_ON:
            return None
        weight = passed.input[0]
    return int(constants[weight].dims[0])


def _axis(node: onnx.NodeProto) -> int:
    return int(helper.get_node_attr_value(node, "axis")) if any(a.name == "axis" for a in node.attribute) else 0


def _final(name: str, replaced: Mapping[str, str]) -> str:
    while name in replaced:
        name = replaced[name]
    return name


def _remove_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes and constants that no output depends on."""
    needed = {output.name for output in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):  # which are in topological order
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    used = [constant for constant in graph.initializer if constant.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(used)
