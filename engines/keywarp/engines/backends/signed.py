"""Quantised graphs with signed activations, the only ones that TensorRT reads."""

import numpy as np
import onnx
from onnx import helper, numpy_helper


def to_signed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a quantised graph with activations in int8 around 0 in place of uint8, and with biases in fp32.

    A range becomes symmetric about 0, so one that begins at 0 keeps 127 of its 255 steps. There the pair also did the
    work of a ReLU, which is put back.

    Args:
        model: A graph whose activations are quantised with one scale per tensor. It isn't changed.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {initializer.name: initializer for initializer in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    signed: set[str] = set()
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            stored = numpy_helper.to_array(constants[node.input[0]])
            if stored.dtype == np.int32:  # a bias
                value = stored.astype(np.float32) * numpy_helper.to_array(constants[node.input[1]])
                graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), node.output[0]))
                continue
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
            scale, zero = constants[node.input[1]], constants[node.input[2]]
            unsigned = zero.data_type == onnx.TensorProto.UINT8
            signed |= {zero.name} if unsigned else set()
            if node.op_type == "QuantizeLinear" and zero.name in signed and _zero(model, zero.name) == 0:
                clipped = f"{node.output[0]}_positive"
                nodes.append(helper.make_node("Relu", [node.input[0]], [clipped], name=clipped))
                node.input[0] = clipped
            if unsigned:
                _make_signed(scale, zero)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [initializer for initializer in graph.initializer if initializer.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return result


def _zero(model: onnx.ModelProto, name: str) -> int:
    """Return a zero point of the original graph."""
    return next(int(numpy_helper.to_array(i)) for i in model.graph.initializer if i.name == name)


def _make_signed(scale: onnx.TensorProto, zero: onnx.TensorProto) -> None:
    point = int(numpy_helper.to_array(zero))
    step = numpy_helper.to_array(scale) * np.float32(max(point, 255 - point) / 127)
    scale.CopyFrom(numpy_helper.from_array(np.asarray(step, np.float32), scale.name))
    zero.CopyFrom(numpy_helper.from_array(np.array(0, np.int8), zero.name))
