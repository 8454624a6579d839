"""Write transposed convolutions as convolutions, which runtimes run in int8.

OpenVINO leaves a transposed convolution with many channels in bf16 or fp32. With a kernel of t strides along each side,
each of the stride^2 pixels that belong to one input pixel is a convolution of t x t input pixels. Together they are one
convolution with stride^2 times as many channels, whose channels are then spread over the pixels (Shi et al., Real-Time
Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network, CVPR 2016). The
products are the same ones.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_END = np.iinfo(np.int64).max
_SPATIAL = (2, 3)  # axes of height and width


def to_subpixel(model: onnx.ModelProto) -> None:
    """Replace transposed convolutions by convolutions, in place.

    Args:
        model: A graph whose weights are constants. Layers with groups, dilation, output padding, or a kernel that isn't
            square or no multiple of the stride stay as they are.
    """
    graph = model.graph
    constants = {constant.name: constant for constant in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "ConvTranspose" else None
        stride = None if weight is None else _stride(node, numpy_helper.to_array(weight))
        if weight is None or stride is None:
            nodes.append(node)
            continue
        replaced, added = _replace(node, numpy_helper.to_array(weight), stride, constants)
        nodes += replaced
        graph.initializer.extend(added)
    del graph.node[:]
    graph.node.extend(nodes)


def _stride(node: onnx.NodeProto, weight: NDArray[Any]) -> int | None:
    """Return the stride of a layer that can be replaced, or None."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if weight.ndim != 4 or attributes.get("group", 1) != 1 or "output_shape" in attributes:
        return None
    if set(attributes.get("dilations", [1])) != {1} or any(attributes.get("output_padding", [0])):
        return None
    strides = set(attributes.get("strides", [1]))
    height, width = weight.shape[2:]
    stride = max(strides)
    replaceable = len(strides) == 1 and stride > 1 and height == width and height % stride == 0
    return int(stride) if replaceable and attributes.get("auto_pad", b"NOTSET") == b"NOTSET" else None


def _replace(
    node: onnx.NodeProto, weight: NDArray[Any], stride: int, constants: dict[str, onnx.TensorProto]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return what computes the same, and its constants."""
    inputs, outputs, kernel, _ = weight.shape
    taps = kernel // stride
    # (inputs, outputs, tap, offset, tap, offset). The first tap belongs to the nearest pixel, as a convolution's last.
    split = weight.reshape(inputs, outputs, taps, stride, taps, stride)[:, :, ::-1, :, ::-1]
    together = split.transpose(3, 5, 1, 0, 2, 4).reshape(stride**2 * outputs, inputs, taps, taps)
    added = [numpy_helper.from_array(np.ascontiguousarray(together), f"{node.name}_subpixel_weight")]
    names = [node.input[0], added[0].name]
    if len(node.input) > 2 and node.input[2]:
        bias = np.tile(numpy_helper.to_array(constants[node.input[2]]), stride**2)
        added.append(numpy_helper.from_array(bias, f"{node.name}_subpixel_bias"))
        names.append(added[-1].name)
    pads = next((list(a.ints) for a in node.attribute if a.name == "pads"), [0] * 4)
    spread = f"{node.name}_spread" if any(pads) else node.output[0]
    found = f"{node.name}_subpixel"
    border = [taps - 1] * 4
    nodes = [
        helper.make_node("Conv", names, [found], name=node.name, kernel_shape=[taps] * 2, pads=border),
        helper.make_node("DepthToSpace", [found], [spread], name=f"{node.name}_spread", blocksize=stride, mode="DCR"),
    ]
    if any(pads):
        ends = [-pad if pad else _END for pad in pads[2:]]
        for name, values in (("starts", pads[:2]), ("ends", ends), ("axes", _SPATIAL)):
            added.append(numpy_helper.from_array(np.array(values, np.int64), f"{node.name}_{name}"))
        slices = [f"{node.name}_{name}" for name in ("starts", "ends", "axes")]
        nodes.append(helper.make_node("Slice", [spread, *slices], [node.output[0]], name=f"{node.name}_crop"))
    return nodes, added
