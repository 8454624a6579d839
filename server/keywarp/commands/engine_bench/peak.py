"""The operations a second that the device reaches in large convolutions, in each precision."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from keywarp.commands.engine_bench.turns import Contestant, Turn, open_runtime, timed_frames
from keywarp.engines import Precision
from keywarp.engines.backends import BackendName
from keywarp.quantization.graph import GraphQuantizer

PEAK = "peak"  # the group
PEAK_LAYERS = 6
PEAK_SHAPES = {"3x3": (256, 3, 40, 64), "1x1": (1024, 1, 40, 64)}  # channels, kernel, height and width of the maps


def peak(shape: str, backend: BackendName, precision: Precision, threads: int) -> Contestant:
    """Return a chain of large convolutions, to find how many operations a second the device reaches.

    Args:
        shape: One of `PEAK_SHAPES`.
        backend: The runtime.
        precision: The precision.
        threads: See `open_backend`.
    """

    def start() -> Turn:
        channels, _, height, width = PEAK_SHAPES[shape]
        model = convolutions(shape)
        inputs = {"x": np.random.default_rng(0).random((1, channels, height, width), np.float32)}
        if precision == "int8":
            quantizer = GraphQuantizer("peak", model, [inputs])
            model = quantizer.quantize(quantizer.layers)
        program = open_runtime(backend, precision, threads).compile(model)
        return timed_frames(lambda _: program.run(inputs), 3)

    return Contestant(f"peak {shape} {backend} {precision}", PEAK, start)


def peak_operations(shape: str) -> int:
    """Return the operations of `peak`'s convolutions."""
    channels, kernel, height, width = PEAK_SHAPES[shape]
    return 2 * PEAK_LAYERS * channels**2 * kernel**2 * height * width


def convolutions(shape: str) -> onnx.ModelProto:
    """Return the graph of `peak`.

    Args:
        shape: One of `PEAK_SHAPES`.
    """
    channels, kernel, height, width = PEAK_SHAPES[shape]
    random = np.random.default_rng(0)
    deviation = (2 / (channels * kernel**2)) ** 0.5  # keeps the maps' variance (He et al., 2015)

    def layers() -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto, onnx.TensorProto]]:
        for number in range(PEAK_LAYERS):
            weight = deviation * random.standard_normal((channels, channels, kernel, kernel), np.float32)
            yield (
                helper.make_node(
                    "Conv",
                    [f"x{number}" if number else "x", f"weight{number}"],
                    [f"sum{number}"],
                    f"conv{number}",
                    pads=[kernel // 2] * 4,
                ),
                helper.make_node("Relu", [f"sum{number}"], [f"x{number + 1}"], f"relu{number}"),
                numpy_helper.from_array(weight.astype(np.float32), f"weight{number}"),
            )

    nodes, weights = [], []
    for convolution, relu, weight in layers():
        nodes += [convolution, relu]
        weights.append(weight)
    nodes.append(helper.make_node("GlobalMaxPool", [f"x{PEAK_LAYERS}"], ["y"], "pool"))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, height, width])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels, 1, 1])]
    graph = helper.make_graph(nodes, "peak", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
