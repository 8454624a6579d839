"""Nodes that turn a map of numbers per pixel into the engine's form, as coarse as the network computes it.

An enlargement to the image's size at the end of the file is left out: who needs the frame's size gets the same numbers
by enlarging them then, and propagation and results are cheaper without it.
"""

import onnx

from keywarp.importing.decoding.node_builder import NodeBuilder
from keywarp.importing.decoding.segmentation import enlarges, static_shapes, static_size, with_whole_stride
from keywarp.importing.result_format import DenseLayout
from keywarp.importing.strides import whole_stride

_RESHAPING = ("Identity", "Squeeze", "Unsqueeze", "Reshape", "Flatten")  # which keep the numbers


def append_dense(head: onnx.ModelProto, layout: DenseLayout, height: int, width: int) -> onnx.ModelProto:
    """Return the head with the output `values`, (1, 1, h, w) with an integer stride.

    Args:
        head: The graph from features to the file's own outputs.
        layout: What they mean.
        height: The height of the network's input in pixels.
        width: The width of the network's input in pixels.

    Raises:
        ImportingError: If the output has no static size.
    """
    builder = NodeBuilder(head)
    values, rows, columns = _before_enlargement(head, layout.tensor, height, width)
    values = builder.reshape(builder.node("Cast", values, to=onnx.TensorProto.FLOAT), 1, 1, rows, columns)
    values, rows, columns = with_whole_stride(builder, values, (1, rows, columns), height, width)
    return builder.finish(values=(values, [1, 1, rows, columns]))


def _before_enlargement(head: onnx.ModelProto, output: str, height: int, width: int) -> tuple[str, int, int]:
    """Return the map behind an output, before an enlargement at the end, and its rows and columns."""
    producers = {name: node for node in head.graph.node for name in node.output}
    shapes = static_shapes(head)
    tensor = output
    while (node := producers.get(tensor)) and node.op_type in _RESHAPING:
        tensor = node.input[0]
    if node is not None and enlarges(node):
        shape = shapes.get(node.input[0], ())
        if len(shape) == 4 and shape[1] == 1 and whole_stride(*shape[2:], height, width):
            return node.input[0], *shape[2:]
    shape = shapes.get(output, ())
    if len(shape) == 4 and shape[3] == 1 != shape[1]:  # channels last
        return output, *shape[1:3]
    return output, *static_size(shapes, output)
