"""A light network on every frame, in int8: what a heavy one competes with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from keywarp.commands.engine_bench.footage import LENGTH, Frame
from keywarp.commands.engine_bench.turns import Contestant, Turn, open_runtime, timed_frames
from keywarp.engines import AVAILABLE, BackendName, Precision
from keywarp.engines.fusion import FRAME
from keywarp.engines.manifest import ImagePreparation
from keywarp.importing.model_file import read_model
from keywarp.importing.preparation import PreparationHints, guess_preparation
from keywarp.quantization.graph import GraphQuantizer

NANO = "nano"  # the group
RUNTIME: BackendName = AVAILABLE[0]  # type: ignore[assignment]  # the fastest that is installed


def nano(path: Path, precision: Precision, threads: int, frames: Sequence[Frame]) -> Contestant:
    """Return a light network on every frame.

    Args:
        path: Its ONNX file.
        precision: The precision. For int8 all of its layers are quantised.
        threads: See `open_backend`.
        frames: The frames to find the ranges of activations, for int8.
    """

    def start() -> Turn:
        height, width = frames[0].shape[:2]
        model = read_model(path, _size_of(path) or (height, width))
        image = guess_preparation(model, None, PreparationHints()).image
        network = model.model
        inputs = [_prepared(cv2.resize(frame, (model.width, model.height)), image) for frame in frames]
        if precision == "int8":
            quantizer = GraphQuantizer(path.name, network, [{"image": values} for values in inputs])
            network = quantizer.quantize(quantizer.layers)
        program = open_runtime(RUNTIME, precision, threads).compile(_taking_bytes(network, image))

        def run(frame: Frame) -> None:
            if frame.shape[:2] != (model.height, model.width):
                frame = np.asarray(cv2.resize(frame, (model.width, model.height)), np.uint8)
            program.run({FRAME: np.ascontiguousarray(frame)[np.newaxis]})

        return timed_frames(run, LENGTH)

    return Contestant(f"{path.stem} {precision}", NANO, start)


def _size_of(path: Path) -> tuple[int, int] | None:
    """Return the height and width that a file's image has, or None if it takes any."""
    shape = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type.shape.dim
    sides = [dim.dim_value for dim in shape]
    if len(sides) != 4:
        return None
    height, width = sides[1:3] if sides[3] == 3 else sides[2:]
    return (height, width) if height > 0 and width > 0 else None


def _prepared(frame: NDArray[Any], image: ImagePreparation) -> NDArray[np.float32]:
    pixels = frame if image.channel_order == "rgb" else frame[..., ::-1]
    mean, std = np.array(image.mean, np.float32), np.array(image.std, np.float32)
    normal = ((pixels.astype(np.float32) - mean) / std).astype(np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))[np.newaxis]


def _taking_bytes(network: onnx.ModelProto, image: ImagePreparation) -> onnx.ModelProto:
    """Return a network that takes a frame's bytes, (1, H, W, 3) in RGB, and normalises them itself."""
    model = onnx.ModelProto()
    model.CopyFrom(network)
    graph = model.graph
    first = graph.input[0]
    _, _, height, width = (dim.dim_value for dim in first.type.tensor_type.shape.dim)
    constants: dict[str, NDArray[Any]] = {
        "frame_order": np.array([0, 1, 2] if image.channel_order == "rgb" else [2, 1, 0], np.int64),
        "frame_mean": np.array(image.mean, np.float32).reshape(1, 3, 1, 1),
        "frame_std": np.array(image.std, np.float32).reshape(1, 3, 1, 1),
    }
    nodes = [
        helper.make_node("Cast", [FRAME], ["frame_float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["frame_float"], ["frame_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["frame_planes", "frame_order"], ["frame_ordered"], axis=1),
        helper.make_node("Sub", ["frame_ordered", "frame_mean"], ["frame_centred"]),
        helper.make_node("Div", ["frame_centred", "frame_std"], [first.name]),
    ]
    if image.channel_order == "rgb":
        del nodes[2]
        nodes[2].input[0] = "frame_planes"
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    nodes += [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(FRAME, TensorProto.UINT8, [1, height, width, 3]))
    return model
