"""Correct the biases of layers for what quantisation shifts.

Rounding moves the mean of what each channel of a layer gives, and these shifts add up from layer to layer: scores
become a little lower everywhere, and objects near the threshold are lost. So each bias takes back the mean shift that
its own layer causes, as measured on the inputs that it was calibrated with (Nagel et al., Data-Free Quantization
Through Weight Equalization and Bias Correction, ICCV 2019).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from keywarp.engines.backends.ort import DISABLED, ort
from keywarp.quantization.capture import Feed

Range = tuple[float, float]
Shifts = Mapping[str, NDArray[np.float32]]  # by layer: what to add to its bias, one value per channel
_CHANNEL = {
    "Conv": 0,
    "ConvTranspose": 1,
}  # axis of the weights whose scales differ; layers of other kinds stay as they are


def measure_shifts(
    model: onnx.ModelProto, layers: Sequence[str], ranges: Mapping[str, Range], feeds: Sequence[Feed]
) -> Shifts:
    """Return the mean shift that the quantisation of each layer causes in what it gives.

    Args:
        model: The graph in fp32.
        layers: The names of its layers.
        ranges: The least and the greatest value of tensors.
        feeds: Inputs of the graph.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    weights = {initializer.name: initializer for initializer in model.graph.initializer}
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    taps: dict[str, str] = {}  # layer by output
    for node in model.graph.node:
        if node.name not in layers or node.op_type not in _CHANNEL or node.input[0] not in ranges:
            continue
        weight = numpy_helper.to_array(weights[node.input[1]])
        tap = f"shift_{len(taps)}"
        probe.graph.node.extend(_tap(node, tap, weight.ndim, opset))
        probe.graph.initializer.extend(_constants(node, tap, weight, ranges[node.input[0]], opset))
        probe.graph.output.append(helper.make_tensor_value_info(tap, onnx.TensorProto.FLOAT, None))
        taps[tap] = node.name
    if not taps:
        return {}
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only
    # Not optimised: the pairs would become layers in int8, which add rounding of their own.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = ort.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED
    )
    runs = [session.run(list(taps), dict(feed)) for feed in feeds]
    means = [np.asarray(np.mean(values, axis=0), np.float32) for values in zip(*runs, strict=True)]
    return dict(zip(taps.values(), means, strict=True))


def shift_biases(model: onnx.ModelProto, shifts: Shifts) -> None:
    """Add shifts to the biases of layers, in place.

    Args:
        model: A graph in fp32.
        shifts: What to add, by layer.
    """
    constants = {initializer.name: initializer for initializer in model.graph.initializer}
    for node in model.graph.node:
        shift = shifts.get(node.name)
        has_bias = len(node.input) > 2 and bool(node.input[2])
        if shift is None or (has_bias and node.input[2] not in constants):
            continue
        bias = numpy_helper.to_array(constants[node.input[2]]) if has_bias else np.float32(0)
        name = f"{node.name}_shifted_bias"
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(bias + shift, np.float32), name))
        node.input[:] = [*node.input[:2], name]


def _tap(node: onnx.NodeProto, tap: str, rank: int, opset: int) -> Iterator[onnx.NodeProto]:
    """Yield the nodes from a layer's input to the mean of the difference, per channel, that its quantisation makes."""
    yield helper.make_node("QuantizeLinear", [node.input[0], f"{tap}_scale", f"{tap}_zero"], [f"{tap}_narrow"])
    yield helper.make_node("DequantizeLinear", [f"{tap}_narrow", f"{tap}_scale", f"{tap}_zero"], [f"{tap}_input"])
    again = onnx.NodeProto()
    again.CopyFrom(node)
    again.name = tap
    again.input[:] = [f"{tap}_input", f"{tap}_weight", *node.input[2:]]
    again.output[:] = [f"{tap}_output"]
    yield again
    yield helper.make_node("Sub", [node.output[0], f"{tap}_output"], [f"{tap}_difference"])
    axes = [0, *range(2, rank)]
    if opset < 18:
        yield helper.make_node("ReduceMean", [f"{tap}_difference"], [tap], axes=axes, keepdims=0)
    else:
        yield helper.make_node("ReduceMean", [f"{tap}_difference", f"{tap}_axes"], [tap], keepdims=0)


def _constants(
    node: onnx.NodeProto, tap: str, weight: NDArray[Any], extremes: Range, opset: int
) -> Iterator[onnx.TensorProto]:
    low, high = min(float(np.min(extremes[0])), 0.0), max(float(np.max(extremes[1])), 0.0)
    scale = (high - low) / 255 or 1.0
    yield numpy_helper.from_array(np.array(scale, np.float32), f"{tap}_scale")
    yield numpy_helper.from_array(np.array(min(round(-low / scale), 255), np.uint8), f"{tap}_zero")
    others = tuple(axis for axis in range(weight.ndim) if axis != _CHANNEL[node.op_type])
    steps = np.abs(weight).max(axis=others, keepdims=True) / 127
    steps = np.where(steps == 0, 1, steps)
    yield numpy_helper.from_array((np.rint(weight / steps) * steps).astype(np.float32), f"{tap}_weight")
    if opset >= 18:
        yield numpy_helper.from_array(np.array([0, *range(2, weight.ndim)], np.int64), f"{tap}_axes")
