"""Casts that TensorRT supports."""

import onnx
from onnx import TensorProto, helper


def cast_through_float(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph in which integers become bytes by way of floats, since TensorRT casts only floats to UINT8.

    The integers are class ids below 256, which all float types represent.

    Args:
        model: The graph. It isn't changed.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    nodes: list[onnx.NodeProto] = []
    for node in result.graph.node:
        to_bytes = node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == TensorProto.UINT8
        if to_bytes and kinds.get(node.input[0]) not in floats:
            name = f"{node.output[0]}_float"
            nodes.append(helper.make_node("Cast", [node.input[0]], [name], name=name, to=TensorProto.FLOAT))
            node.input[0] = name
        nodes.append(node)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result
