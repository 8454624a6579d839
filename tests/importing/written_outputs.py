"""Models that give known outputs, and boxes and scores that are written as files write them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from keywarp.importing.decoders import append_decoder
from keywarp.importing.model_file import ImportedModel, TensorSpec
from keywarp.importing.result_format import Grid, ResultFormat

Array = NDArray[Any]
HEIGHT, WIDTH = 128, 160


def model_of(
    outputs: Mapping[str, Array],
    metadata: Mapping[str, str] | None = None,
    producer: str = "",
    opset: int = 17,
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> ImportedModel:
    """A network whose outputs don't depend on the picture, though runtimes can't know."""
    builder = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Reshape", ["mean", "three"], ["flat"]),
        helper.make_node("Slice", ["flat", "zero", "one"], ["first"]),
        helper.make_node("Mul", ["first", "nothing"], ["none"]),
    ]
    constants = {
        "three": np.array([3]),
        "zero": np.array([0]),
        "one": np.array([1]),
        "nothing": np.zeros(1, np.float32),
        "": np.zeros(0),
    }
    values = []
    for name, value in outputs.items():
        constants[f"value_{name}"] = value
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        builder.append(helper.make_node("Cast", ["none"], [f"none_{name}"], to=kind))
        shape = f"shape_{name}"
        constants[shape] = np.array(value.shape, np.int64)
        builder.append(helper.make_node("Expand", [f"none_{name}", shape], [f"zeros_{name}"]))
        builder.append(helper.make_node("Add", [f"zeros_{name}", f"value_{name}"], [name]))
        values.append(helper.make_tensor_value_info(name, kind, value.shape))
    graph = helper.make_graph(
        builder,
        "written",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, *size])],
        values,
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    specs = tuple(TensorSpec(name, value.shape, value.dtype) for name, value in outputs.items())
    return ImportedModel(model, *size, specs, metadata or {}, producer)


def decode(model: ImportedModel, result: ResultFormat, feed: Array | None = None) -> dict[str, Array]:
    """Run the model with the decoder appended."""
    decoded = append_decoder(model.model, result, model.height, model.width)
    onnx.checker.check_model(decoded, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(decoded.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    image = np.zeros((1, 3, model.height, model.width), np.float32) if feed is None else feed
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: image}), strict=True))


def boxes_on(grid: Grid, random: np.random.Generator) -> Array:
    """Boxes (n, 4), x1 y1 x2 y2 in pixels, each centred near its cell."""
    centres, strides, _ = grid.rows(HEIGHT, WIDTH)
    centre = centres + random.uniform(-1.2, 1.2, centres.shape) * strides
    half = strides * np.exp(random.uniform(-0.8, 1.2, centres.shape))
    return np.concatenate((centre - half, centre + half), axis=1).astype(np.float32)


def boxes_anywhere(count: int, random: np.random.Generator) -> Array:
    """Boxes (n, 4), x1 y1 x2 y2 in pixels, inside of the image."""
    corners = random.uniform(0, 1, (2, count, 2)) * (WIDTH - 8, HEIGHT - 8)
    low, high = np.minimum(*corners), np.maximum(*corners) + 8
    return np.concatenate((low, high), axis=1).astype(np.float32)


def rare_scores(rows: int, classes: int, random: np.random.Generator) -> Array:
    """Probabilities (rows, classes), of which few are high."""
    return (random.uniform(0.001, 0.999, (rows, classes)) ** 8).astype(np.float32)


def logit(p: Array) -> Array:
    """The inverse of the sigmoid."""
    written: Array = np.log(p / (1 - p))
    return written


def cxcywh(boxes: Array) -> Array:
    """Write x1, y1, x2, y2 as the centre, width and height."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.concatenate(((low + high) / 2, high - low), axis=1)
