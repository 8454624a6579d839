"""Compare backends: run each graph of a bundle on each backend with the same inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from keywarp.engines.backends import Backend
from keywarp.engines.bundle import Bundle
from keywarp.engines.manifest import GRAPHS, Manifest, map_names
from keywarp.engines.preparation import input_size

TOLERANCE = 1e-3  # share of the reference's largest value; the order of fp32 sums makes far less difference


@dataclass(frozen=True, slots=True)
class Parity:
    """The difference of one output of one graph from the reference backend's."""

    graph: str
    output: str
    backend: str
    reference: str
    error: float  # largest absolute difference
    relative: float  # `error` as a share of the reference's largest absolute value

    @property
    def agrees(self) -> bool:
        """Whether the difference is small enough to be rounding."""
        return self.relative <= TOLERANCE


def compare_backends(bundle: Bundle, backends: Sequence[Backend], height: int = 270, width: int = 480) -> list[Parity]:
    """Run the graphs on noise on every backend, and compare with the first backend.

    Args:
        bundle: The bundle.
        backends: One or more backends, all in fp32 for a fair comparison. The first one is the reference.
        height: The frame's height in pixels.
        width: The frame's width in pixels.

    Raises:
        BackendError: If a backend refuses a graph.
    """
    rows, columns = input_size(height, width, bundle.manifest.image)
    down = bundle.manifest.flow.downscale
    random = np.random.default_rng(0)
    values: dict[str, NDArray[Any]] = {"image": _noise(random, rows, columns)}
    values["current"] = _noise(random, -(-rows // down), -(-columns // down))
    values["key"] = np.roll(values["current"], 2, axis=3)
    if not bundle.manifest.has_flow_network:
        values |= _motion(random, bundle.manifest, rows, columns)

    found: list[Parity] = []
    for name in GRAPHS:
        if name not in bundle.manifest.files:
            continue
        model = bundle.graph(name)
        inputs = {i.name: values[i.name] for i in model.graph.input}
        static = fix_shapes(model, {name: value.shape for name, value in inputs.items()})
        programs = [backend.compile(static) for backend in backends]  # kept, since they own their outputs
        outputs = [program.run(inputs) for program in programs]
        reference = {key: np.asarray(value) for key, value in outputs[0].items()}
        for backend, output in zip(backends[1:], outputs[1:], strict=True):
            for key, expected in reference.items():
                error = float(np.abs(np.asarray(output[key]) - expected).max())
                largest = float(np.abs(expected).max())
                relative = error / largest if largest else error
                found.append(Parity(Path(name).stem, key, backend.name, backends[0].name, error, relative))
        values |= {name: value.copy() for name, value in reference.items()}
    return found


def fix_shapes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """Return a copy of a graph whose inputs have the given shapes; the shapes of its outputs follow from them."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for value in result.graph.input:
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, shapes[value.name]))
    for value in result.graph.output:
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, None))
    del result.graph.value_info[:]
    return result


def _motion(random: np.random.Generator, manifest: Manifest, rows: int, columns: int) -> dict[str, NDArray[np.float32]]:
    """Return what a flow network would give: flows of up to two cells, and scale fields around 1."""

    def cells(stride: int, channels: int) -> tuple[int, ...]:
        return 1, channels, -(-rows // stride), -(-columns // stride)

    flow = random.uniform(-2, 2, cells(manifest.finest.stride, 2)).astype(np.float32)
    scales = (random.uniform(0.5, 1.5, cells(f.stride, f.channels)).astype(np.float32) for f in manifest.features)
    return {"flow": flow, **dict(zip(map_names("scale", len(manifest.features)), scales, strict=True))}


def _noise(random: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    return random.uniform(-110, 110, (1, 3, height, width)).astype(np.float32)
