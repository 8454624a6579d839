"""ONNX files made by hand, node by node."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

IMAGE = ("pixels", TensorProto.FLOAT, (1, 3, 64, 96))
Value = tuple[str, int, Sequence[int | str | None]]


def convolution(stride: int = 8, channels: int = 16) -> NDArray[np.float32]:
    """Make the weights of a convolution of patches."""
    return np.random.default_rng(0).normal(0, 0.1, (channels, 3, stride, stride)).astype(np.float32)


def model_of(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, NDArray[Any]],
    inputs: Sequence[Value] = (IMAGE,),
    outputs: Sequence[Value] = (("result", TensorProto.FLOAT, None),),  # type: ignore[assignment]
    opset: int = 17,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """Make a model."""
    graph = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="by hand", producer_version="1.0")


def patches(output: str = "result", image: str = "pixels") -> NodeProto:
    """Make a convolution of patches of 8 pixels, whose weights are `weights`."""
    return helper.make_node("Conv", [image, "weights"], [output], kernel_shape=[8, 8], strides=[8, 8])


def saved(model: onnx.ModelProto, folder: Path, **options: Any) -> Path:
    """Write a model, and return its path."""
    path = folder / "network.onnx"
    onnx.save(model, path, **options)
    return path
