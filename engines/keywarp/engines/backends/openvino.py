"""OpenVINO on the CPU."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np
import onnx
import openvino as ov
from numpy.typing import NDArray
from onnx import TensorProto

from keywarp.engines.backends.interface import DeviceTensor, Precision, Program, Tensor
from keywarp.engines.backends.openvino_warp import gather_rows
from keywarp.engines.compiler import COMPILES
from keywarp.engines.errors import BackendError
from keywarp.engines.fusion import GraphStyle
from keywarp.engines.processor import available_cores

# OpenVINO changes the process's locale while it reads and compiles, and restores it. Two threads at once could leave it
# changed, and text files would be read as ASCII from then on.
_COMPILING = Lock()
# All backends share one core, which is never closed. The CPU plugin of each core gives the thread that opens it a stack
# for signal handlers, and frees it with the core, even if cores are closed in another order and the thread still uses
# it. The next signal would then overwrite memory that has become something else's, or end the process.
_CORE: Final = ov.Core()
_ELEMENT = {"fp32": "f32", "bf16": "bf16"}
# The CPU plugin fuses chains of small operations, and attention, into snippets. It fails with some graphs when it tries
# to, such as Mask2Former's in OpenVINO 2026.4.
_WITHOUT_SNIPPETS = {"SNIPPETS_MODE": "DISABLE"}


class OpenVINOBackend:
    """Compiles with OpenVINO's CPU plugin."""

    name = "openvino"
    reason = "it was requested"
    frames = None
    in_flight = False
    style = GraphStyle(channels_last=True, host_labels=COMPILES)

    def __init__(self, precision: Precision = "auto", threads: int = 0, cache: Path | None = None) -> None:
        """See `open_backend`.

        Raises:
            BackendError: If the processor doesn't support the precision.
        """
        if precision == "fp16":
            raise BackendError("OpenVINO on the CPU computes in fp32, bf16 or int8, not fp16: use one of these or auto")
        self.device = str(_CORE.get_property("CPU", "FULL_DEVICE_NAME")).strip()
        has_bf16 = "BF16" in _CORE.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and not has_bf16:
            raise BackendError(f"{self.device} has no bf16 arithmetic: use precision fp32 or auto")
        fastest = "bf16" if has_bf16 else "fp32"
        self.precision = fastest if precision == "auto" else precision
        self._config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            # In int8 this is the precision of the layers that aren't quantised.
            "INFERENCE_PRECISION_HINT": _ELEMENT[fastest if self.precision == "int8" else self.precision],
        }
        if self._config["INFERENCE_PRECISION_HINT"] == "bf16":
            self.style = replace(self.style, inner_type=TensorProto.BFLOAT16)
        if threads:
            self._config["INFERENCE_NUM_THREADS"] = threads
        self._threads = threads or available_cores()
        self._cache = cache

    def compile(self, model: onnx.ModelProto, resident: frozenset[str] = frozenset()) -> Program:
        """See `Backend.compile`."""
        return self._program(model, resident, self._config)

    def compile_lanes(
        self, model: onnx.ModelProto, resident: frozenset[str] = frozenset(), lanes: int = 2
    ) -> tuple[Program, ...]:
        """See `Backend.compile_lanes`."""
        # OpenVINO's own streams hand each run to another thread, and pin the first thread of every network to the first
        # core. Both leave cores idle: two lanes did 133 frames a second that way, and do 170 this way.
        share = {"INFERENCE_NUM_THREADS": max(1, self._threads // lanes), "ENABLE_CPU_PINNING": False}
        return tuple(self._program(model, resident, self._config | share) for _ in range(lanes))

    def _program(self, model: onnx.ModelProto, resident: frozenset[str], config: dict[str, Any]) -> Program:
        outputs = [output.name for output in model.graph.output]
        try:
            with _COMPILING:
                compiled = self._compile(model.SerializeToString(), config)
            return _OpenVINOProgram(compiled, outputs, resident)
        except RuntimeError as error:
            raise BackendError(f"OpenVINO can't compile {model.graph.name}: {_reason(error)}") from error

    def _compile(self, content: bytes, config: dict[str, Any]) -> ov.CompiledModel:
        network = _CORE.read_model(content)
        places = gather_rows(network)
        if self._config["INFERENCE_PRECISION_HINT"] == "bf16":  # also of what isn't quantised in int8
            _keep_exact(network, places)
        try:
            return self._compile_with(network, config)
        except RuntimeError as error:
            if "snippets" not in str(error):
                raise
        return self._compile_with(network, config | _WITHOUT_SNIPPETS)

    def _compile_with(self, network: ov.Model, config: dict[str, Any]) -> ov.CompiledModel:
        if self._cache:
            with contextlib.suppress(RuntimeError):  # the disk is full, or another process writes the same entry
                return _CORE.compile_model(network, "CPU", config | {"CACHE_DIR": str(self._cache)})
        return _CORE.compile_model(network, "CPU", config)


def _keep_exact(network: ov.Model, places: Sequence[ov.Output]) -> None:
    """Keep the places at which maps are sampled in fp32.

    In bf16 they have 8 bits: the warp of a map 160 cells wide would miss its places by up to .15 cells. OpenVINO
    computes in fp32 what leads to an output with no convolution or matrix product between, so places become outputs.
    """
    network.add_outputs(list(places))


def _reason(error: RuntimeError) -> str:
    """Return an error of OpenVINO in one line, without the places in its code."""
    lines = (line.strip() for line in str(error).splitlines())
    return " ".join(line for line in lines if line and not line.startswith("Exception from "))


class _OpenVINOProgram:
    def __init__(self, compiled: ov.CompiledModel, outputs: list[str], resident: frozenset[str]) -> None:
        self._request = compiled.create_infer_request()
        self._outputs = {name: compiled.output(name) for name in outputs}
        self._resident = resident

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        request = self._request
        try:
            for name, tensor in inputs.items():
                shared = tensor.value if isinstance(tensor, DeviceTensor) else _share(tensor)
                request.set_tensor(name, shared)
            for name in self._resident:  # a new tensor, so that the next run doesn't overwrite it
                port = self._outputs[name]
                request.set_tensor(port, ov.Tensor(port.element_type, port.shape))
            request.infer()
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed: {_reason(error)}") from error
        return {
            name: DeviceTensor(request.get_tensor(port)) if name in self._resident else request.get_tensor(port).data
            for name, port in self._outputs.items()
        }


class _Writable:
    """The memory of a read-only array, said to be writable."""

    def __init__(self, array: NDArray[Any]) -> None:
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = array.__array_interface__ | {"data": (address, False)}
        self._array = array  # keeps the memory


def _share(array: NDArray[Any]) -> ov.Tensor:
    """Return a tensor in the memory of a C-contiguous array.

    OpenVINO refuses read-only memory, though it never writes to an input.
    """
    return ov.Tensor(array if array.flags.writeable else np.asarray(_Writable(array)), shared_memory=True)
