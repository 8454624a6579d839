"""Record what goes into a bundle's graphs while an engine runs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from keywarp.engines import Backend
from keywarp.engines.backends import Program
from keywarp.engines.backends.interface import Tensor
from keywarp.engines.fusion import spliced
from keywarp.engines.manifest import Manifest
from keywarp.engines.quantization import QUANTIZABLE
from keywarp.engines.signatures import graph_signature

Feed = dict[str, NDArray[Any]]  # inputs of a graph by name


class CapturingBackend:
    """A backend whose programs also record the inputs of the bundle's graphs. Give it to an engine before it compiles.

    Attributes:
        feeds: What was recorded, by graph.
        recording: Whether to record.
    """

    def __init__(self, backend: Backend, manifest: Manifest) -> None:
        self._backend = backend
        self.reason = backend.reason
        self.style, self.frames = backend.style, backend.frames
        self.in_flight = backend.in_flight
        graphs = [graph for graph in QUANTIZABLE if graph in manifest.files]
        self._inputs = {graph: graph_signature(manifest, graph)[0] for graph in graphs}
        self.feeds: dict[str, list[Feed]] = {graph: [] for graph in graphs}
        self.recording = False

    @property
    def name(self) -> str:
        """See `Backend.name`."""
        return self._backend.name

    @property
    def device(self) -> str:
        """See `Backend.device`."""
        return self._backend.device

    @property
    def precision(self) -> str:
        """See `Backend.precision`."""
        return self._backend.precision

    def compile(self, model: onnx.ModelProto, resident: frozenset[str] = frozenset()) -> Program:
        """See `Backend.compile`."""
        produced = {name for node in model.graph.node for name in node.output}
        recorded = {
            graph: {name: spliced(graph, name) for name in names}
            for graph, names in self._inputs.items()
            if all(spliced(graph, name) in produced for name in names)
        }
        extended = onnx.ModelProto()
        extended.CopyFrom(model)
        extended.graph.output.extend(
            helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None)
            for inputs in recorded.values()
            for tensor in inputs.values()
        )
        return _CapturingProgram(self, self._backend.compile(extended, resident), recorded)

    def compile_lanes(
        self,
        model: onnx.ModelProto,  # noqa: ARG002
        resident: frozenset[str] = frozenset(),  # noqa: ARG002
        lanes: int = 2,  # noqa: ARG002
    ) -> tuple[Program, ...]:
        """See `Backend.compile_lanes`. Inputs are recorded one frame after another."""
        return ()


class _CapturingProgram:
    def __init__(self, backend: CapturingBackend, program: Program, recorded: dict[str, dict[str, str]]) -> None:
        self._backend = backend
        self._program = program
        self._recorded = recorded

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = self._program.run(inputs)
        for graph, names in self._recorded.items():
            if self._backend.recording:
                feed = {name: np.array(outputs[tensor]) for name, tensor in names.items()}
                self._backend.feeds[graph].append(feed)
        captured = {tensor for names in self._recorded.values() for tensor in names.values()}
        return {name: value for name, value in outputs.items() if name not in captured}
