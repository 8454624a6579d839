"""ONNX Runtime on the CPU."""

import platform
from collections.abc import Mapping

import numpy as np
import onnx

from keywarp.engines.backends.interface import DeviceTensor, Precision, Program, Tensor
from keywarp.engines.backends.ort import DISABLED, ort
from keywarp.engines.compiler import COMPILES
from keywarp.engines.errors import BackendError
from keywarp.engines.fusion import GraphStyle
from keywarp.engines.processor import available_cores

_PROVIDER = "CPUExecutionProvider"


class OnnxRuntimeBackend:
    """Compiles with ONNX Runtime's CPU provider, in fp32, and quantised graphs in int8."""

    name = "onnxruntime"
    reason = "it was requested"
    frames = None
    in_flight = False
    style = GraphStyle(host_labels=COMPILES)

    def __init__(self, precision: Precision = "auto", threads: int = 0) -> None:
        """See `open_backend`.

        Raises:
            BackendError: If another precision than fp32 or int8 is requested.
        """
        if precision not in ("auto", "fp32", "int8"):
            raise BackendError(
                f"ONNX Runtime on the CPU computes in fp32 or int8, not {precision}: use one of these or auto"
            )
        self.precision = "int8" if precision == "int8" else "fp32"
        self.device = platform.processor() or platform.machine()
        self._threads = threads

    def compile(self, model: onnx.ModelProto, resident: frozenset[str] = frozenset()) -> Program:
        """See `Backend.compile`."""
        return OnnxRuntimeProgram(self._session(model, self._threads), resident)

    def compile_lanes(
        self, model: onnx.ModelProto, resident: frozenset[str] = frozenset(), lanes: int = 2
    ) -> tuple[Program, ...]:
        """See `Backend.compile_lanes`."""
        threads = max(1, (self._threads or available_cores()) // lanes)
        # Runs with one thread use their callers'. Otherwise they would share the threads of their session.
        sessions = [self._session(model, threads) for _ in range(1 if threads == 1 else lanes)]
        return tuple(OnnxRuntimeProgram(sessions[lane % len(sessions)], resident) for lane in range(lanes))

    def _session(self, model: onnx.ModelProto, threads: int) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors only, since it warns about every folded constant
        try:
            return ort.InferenceSession(
                model.SerializeToString(), options, providers=[_PROVIDER], disabled_optimizers=DISABLED
            )
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise BackendError(f"ONNX Runtime can't compile {model.graph.name}: {error}") from error


class OnnxRuntimeProgram:
    """A program that runs a session with bound inputs and outputs."""

    def __init__(
        self, session: ort.InferenceSession, resident: frozenset[str], device: tuple[str, int] = ("cpu", 0)
    ) -> None:
        """Read the session's inputs and outputs.

        Args:
            session: The compiled graph.
            resident: The names of the outputs that stay on the device.
            device: The device's name and index in ONNX Runtime.
        """
        self._session = session
        self._half = {i.name for i in session.get_inputs() if i.type == "tensor(float16)"}
        self._outputs = [output.name for output in session.get_outputs()]
        self._resident = resident
        self._device = device

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Program.run`."""
        binding = self._session.io_binding()
        for name, tensor in inputs.items():
            if isinstance(tensor, DeviceTensor):
                binding.bind_ortvalue_input(name, tensor.value)
            else:
                binding.bind_cpu_input(name, tensor.astype(np.float16) if name in self._half else tensor)
        for name in self._outputs:
            binding.bind_output(name, *(self._device if name in self._resident else ("cpu", 0)))
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise BackendError(f"ONNX Runtime failed: {error}") from error
        return {
            name: DeviceTensor(value) if name in self._resident else value.numpy()
            for name, value in zip(self._outputs, binding.get_outputs(), strict=True)
        }
