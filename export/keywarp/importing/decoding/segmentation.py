"""Nodes that turn a segmentation's outputs into scores of classes, as coarse as the network computes them.

Files often end in an enlargement to the image's size and an ArgMax. Engines do both themselves, faster, so the scores
are taken before them where that is possible. Logits of a softmax stay logits: enlarged, they have the file's labels,
while enlarged probabilities have others in a few pixels at the edges of classes.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from keywarp.importing.decoding.node_builder import NodeBuilder
from keywarp.importing.errors import ImportingError
from keywarp.importing.result_format import Activation, Layout, MaskSetLayout, SegmentationLayout
from keywarp.importing.strides import whole_stride

LEAST_TOTAL = 1e-6  # of the scores of a pixel, by which they are divided
_PASSING = ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape")  # after an ArgMax: they keep the labels
_ACTIVATIONS: dict[str, Activation] = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}


@dataclass(frozen=True)
class Scores:
    """A tensor that holds the scores behind an output, and what is still to be applied to them."""

    tensor: str
    channel_axis: int
    activation: Activation
    channels: int
    height: int  # cells
    width: int  # cells


def append_segmentation(head: onnx.ModelProto, layout: SegmentationLayout, height: int, width: int) -> onnx.ModelProto:
    """Return the head with the output `scores` (1, classes, h, w) with an integer stride.

    They are logits if `gives_logits`, otherwise probabilities.

    Args:
        head: The graph from features to the file's own outputs.
        layout: What they mean.
        height: The height of the network's input in pixels.
        width: The width of the network's input in pixels.

    Raises:
        ImportingError: If the output has no static size.
    """
    builder = NodeBuilder(head)
    found = find_scores(head, layout, height, width)
    if found is None:
        scores, rows, columns = _one_hot(builder, head, layout), *static_size(static_shapes(head), layout.tensor)
    else:
        scores, rows, columns = found.tensor, found.height, found.width
        if found.channel_axis == 3:
            scores = builder.node("Transpose", scores, perm=[0, 3, 1, 2])
        logits = _are_logits(found, layout)
        scores = builder.activate(scores, "none" if logits else found.activation, axis=1)
        scores = builder.node("Cast", scores, to=onnx.TensorProto.FLOAT)
        if logits and layout.channels == 1:  # a sigmoid is the softmax of half the logit and its opposite
            half = builder.node("Mul", scores, builder.constant(0.5))
            scores = builder.concat([builder.node("Neg", half), half], axis=1)
            return _finish(builder, scores, (2, rows, columns), height, width)
    classes = layout.channels
    if layout.channels == 1 or layout.implied_background:
        scores, classes = _after_background(builder, scores, layout.channels), classes + 1
    return _finish(builder, scores, (classes, rows, columns), height, width)


def gives_logits(head: onnx.ModelProto, layout: Layout, height: int, width: int) -> bool:
    """Return whether `append_segmentation` makes logits of a softmax instead of probabilities.

    Args:
        head: The graph from features to the file's own outputs.
        layout: What they mean.
        height: The height of the network's input in pixels.
        width: The width of the network's input in pixels.
    """
    if not isinstance(layout, SegmentationLayout):
        return False
    found = find_scores(head, layout, height, width)
    return found is not None and _are_logits(found, layout)


def _are_logits(found: Scores, layout: SegmentationLayout) -> bool:
    return found.activation == "softmax" or (found.activation == "sigmoid" and layout.channels == 1)


def append_mask_set(head: onnx.ModelProto, layout: MaskSetLayout, height: int, width: int) -> onnx.ModelProto:
    """Return the head with the output `scores` (1, classes, h, w), made of the masks and their classes.

    Args:
        head: The graph from features to the file's own outputs.
        layout: What they mean.
        height: The height of the network's input in pixels.
        width: The width of the network's input in pixels.

    Raises:
        ImportingError: If an output has no static size.
    """
    builder = NodeBuilder(head)
    rows, columns = static_size(static_shapes(head), layout.masks)
    chances = builder.part(builder.node("Softmax", layout.classes, axis=2), 0, layout.count, axis=2)
    masks = builder.node("Sigmoid", builder.node("Flatten", builder.reshape(layout.masks, -1, rows, columns), axis=1))
    by_class = builder.node("Transpose", builder.reshape(chances, -1, layout.count), perm=[1, 0])
    scores = builder.reshape(builder.node("MatMul", by_class, masks), 1, layout.count, rows, columns)
    classes = layout.count
    if layout.implied_background:
        scores, classes = _after_background(builder, scores, layout.count), classes + 1
    total = builder.node("Max", builder.reduce("ReduceSum", scores, axis=1), builder.constant(LEAST_TOTAL))
    return _finish(builder, builder.node("Div", scores, total), (classes, rows, columns), height, width)


def _after_background(builder: NodeBuilder, scores: str, channels: int) -> str:
    """Put a background in front of scores (1, channels, h, w), which has what they lack of 1."""
    best = scores if channels == 1 else builder.reduce("ReduceMax", scores, axis=1)
    nothing = builder.node("Relu", builder.node("Sub", builder.constant(1.0), best))
    return builder.concat([nothing, scores], axis=1)


def _finish(builder: NodeBuilder, scores: str, shape: tuple[int, int, int], height: int, width: int) -> onnx.ModelProto:
    """Make scores (1, channels, rows, columns) the output, resized if they have no whole stride."""
    scores, rows, columns = with_whole_stride(builder, scores, shape, height, width)
    return builder.finish(scores=(scores, [1, shape[0], rows, columns]))


def with_whole_stride(
    builder: NodeBuilder, maps: str, shape: tuple[int, int, int], height: int, width: int
) -> tuple[str, int, int]:
    """Resize maps that have no whole stride.

    Args:
        builder: The graph.
        maps: The tensor with the maps, (1, channels, rows, columns).
        shape: Its channels, rows and columns.
        height: The height of the network's input in pixels.
        width: The width of the network's input in pixels.

    Returns:
        The tensor with the resized maps, or the same one, and its rows and columns.
    """
    channels, rows, columns = shape
    if whole_stride(rows, columns, height, width) is not None:
        return maps, rows, columns
    stride = max(1, round(height / rows))
    rows, columns = -(-height // stride), -(-width // stride)
    size = builder.constant([1, channels, rows, columns])
    mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    return builder.node("Resize", maps, "", "", size, **mode), rows, columns


def find_scores(model: onnx.ModelProto, layout: SegmentationLayout, height: int, width: int) -> Scores | None:
    """Find the scores behind an output: before the ArgMax and before the last enlargement.

    Args:
        model: The head, or the whole network.
        layout: What its outputs mean.
        height: The height of the network's input in pixels.
        width: The width of the network's input in pixels.

    Returns:
        The scores. None if the output is labels, and what they were made of isn't found.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    shapes = static_shapes(model)
    axis = 3 if layout.arrangement == "channels_last" else 1
    tensor, activation = layout.tensor, layout.activation
    if layout.arrangement == "labels":
        while tensor in producers and producers[tensor].op_type in _PASSING:
            tensor = producers[tensor].input[0]
        node = producers.get(tensor)
        shape = shapes.get(node.input[0]) if node else None
        if node is None or node.op_type != "ArgMax" or shape is None or len(shape) != 4:
            return None
        axis = int(next((helper.get_attribute_value(a) for a in node.attribute if a.name == "axis"), 0)) % 4
        tensor, activation = node.input[0], "softmax"
        if axis not in (1, 3):
            return None
    source, tail = tensor, activation
    if (node := producers.get(source)) and node.op_type in _ACTIVATIONS:
        source, tail = node.input[0], _ACTIVATIONS[node.op_type]
    if axis == 1 and (node := producers.get(source)) and enlarges(node):
        size = shapes.get(node.input[0], ())
        if len(size) == 4 and whole_stride(*size[2:], height, width):
            return Scores(node.input[0], 1, tail, *size[1:])
    if layout.arrangement == "labels":
        tensor, activation = source, tail
    size = shapes.get(tensor, ())
    if len(size) != 4:
        raise ImportingError(f"the output {layout.tensor} has no fixed size; export the model for one image size")
    channels, rows, columns = size[1:] if axis == 1 else (size[3], *size[1:3])
    return Scores(tensor, axis, activation, channels, rows, columns)


def enlarges(node: onnx.NodeProto) -> bool:
    """Return whether a node enlarges a map linearly as engines do, with centres at half pixels."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    coordinates = attributes.get("coordinate_transformation_mode", b"half_pixel")
    return (
        node.op_type == "Resize"
        and attributes.get("mode") == b"linear"
        and coordinates in (b"half_pixel", b"pytorch_half_pixel")
        and not attributes.get("antialias")
    )


def _one_hot(builder: NodeBuilder, head: onnx.ModelProto, layout: SegmentationLayout) -> str:
    """Add scores of 1 where a label is the class's."""
    rows, columns = static_size(static_shapes(head), layout.tensor)
    labels = builder.node("Cast", builder.reshape(layout.tensor, 1, 1, rows, columns), to=onnx.TensorProto.INT64)
    classes = builder.constant(np.arange(layout.channels).reshape(1, -1, 1, 1))
    return builder.node("Cast", builder.node("Equal", labels, classes), to=onnx.TensorProto.FLOAT)


def static_size(shapes: dict[str, tuple[int, ...]], tensor: str) -> tuple[int, int]:
    """Return the last two sizes of a tensor, rows and columns.

    Raises:
        ImportingError: If they aren't static.
    """
    shape = shapes.get(tensor, ())
    if len(shape) < 2:
        raise ImportingError(f"the output {tensor} has no fixed size; export the model for one image size")
    return shape[-2], shape[-1]


def static_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors whose shapes are static."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {i.name: tuple(i.dims) for i in inferred.initializer}
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            shapes[value.name] = tuple(d.dim_value for d in dims)
    return shapes
