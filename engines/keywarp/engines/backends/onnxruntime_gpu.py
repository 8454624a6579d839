"""ONNX Runtime on an NVIDIA GPU, through its CUDA or its TensorRT provider."""

import importlib
import importlib.util
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from keywarp.engines.backends.half import to_half
from keywarp.engines.backends.interface import Precision, Program
from keywarp.engines.backends.onnxruntime import OnnxRuntimeProgram
from keywarp.engines.backends.ort import DISABLED, ort
from keywarp.engines.backends.signed import to_signed
from keywarp.engines.backends.warping import simplify
from keywarp.engines.devices import CAPABILITIES, Gpu, Runtime
from keywarp.engines.errors import BackendError
from keywarp.engines.fusion import GraphStyle

_PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
log = logging.getLogger(__name__)


class OnnxRuntimeGpuBackend:
    """Compiles with one of ONNX Runtime's GPU providers.

    If a provider doesn't load, ONNX Runtime continues on the CPU and only writes that to its log. The provider that a
    session really uses is therefore checked, once with a small graph and then with every graph. The small graph also
    runs once, because sessions are made even if the provider has no code for the GPU.
    """

    reason = "it was requested"
    frames = None
    in_flight = True
    style = GraphStyle()

    def __init__(
        self, provider: Literal["cuda", "tensorrt"], gpu: Gpu, precision: Precision = "auto", cache: Path | None = None
    ) -> None:
        """Load the provider.

        Args:
            provider: The provider to use.
            gpu: The GPU to run on.
            precision: `fp32`, `fp16`, `int8` for quantised graphs (TensorRT's provider only), or `auto` for fp16 where
                the GPU is faster with it.
            cache: The folder for the TensorRT provider's engines, or None to keep none.

        Raises:
            BackendError: If this ONNX Runtime lacks the provider, or the provider doesn't load, has no code for
                the GPU, or doesn't support the precision.
        """
        if precision == "bf16":
            raise BackendError(
                "Keywarp runs ONNX Runtime on a GPU in fp16 or fp32, not in bf16: use precision fp16, fp32 or auto"
            )
        if precision == "int8" and provider == "cuda":
            raise BackendError("ONNX Runtime's CUDA provider isn't fast in int8: use precision fp16, fp32 or auto")
        self.name: Runtime = "onnxruntime-cuda" if provider == "cuda" else "onnxruntime-tensorrt"
        self.device = gpu.label
        self.precision = gpu.best_precision if precision == "auto" else precision
        self._provider = _PROVIDERS[provider]
        self._index = gpu.index
        if self._provider not in ort.get_available_providers():
            raise BackendError(
                f"this ONNX Runtime has no {self._provider} (it has {', '.join(ort.get_available_providers())}): "
                "pip uninstall onnxruntime, then install the extra `gpu` (README, Install)"
            )
        if provider == "cuda":
            self._settings: dict[str, Any] = {"device_id": gpu.index, "use_tf32": 0}
        else:
            # In int8, the layers that aren't quantised run in fp16 where the GPU is faster with it.
            rest = gpu.best_precision if self.precision == "int8" else self.precision
            self._settings = {"device_id": gpu.index, "trt_fp16_enable": rest == "fp16"}
            self._settings |= {"trt_int8_enable": True} if self.precision == "int8" else {}
            if cache:
                folder = str(cache / self.name)
                self._settings |= {"trt_engine_cache_enable": True, "trt_engine_cache_path": folder}
                self._settings |= {"trt_timing_cache_enable": True, "trt_timing_cache_path": folder}
        self._options = ort.SessionOptions()
        self._options.log_severity_level = 3  # errors only, since it warns about every folded constant
        ort.preload_dlls()  # CUDA and cuDNN, if they are installed as Python packages
        if provider == "tensorrt" and importlib.util.find_spec("tensorrt_libs"):
            importlib.import_module("tensorrt_libs")  # loads TensorRT, which the provider wouldn't find
        self._try(gpu)

    def compile(self, model: onnx.ModelProto, resident: frozenset[str] = frozenset()) -> Program:
        """See `Backend.compile`."""
        return self.compile_lanes(model, resident, 1)[0]

    def compile_lanes(
        self, model: onnx.ModelProto, resident: frozenset[str] = frozenset(), lanes: int = 2
    ) -> tuple[Program, ...]:
        """See `Backend.compile_lanes`. The lanes share a session, whose runs may be made by several threads."""
        if self.precision == "int8":
            model = to_signed(model)
        # The TensorRT provider converts graphs to fp16 itself.
        if self.precision == "fp16" and self._provider == _PROVIDERS["cuda"]:
            model = to_half(simplify(model), resident)
        session = self._session(model)
        return tuple(OnnxRuntimeProgram(session, resident, ("cuda", self._index)) for _ in range(lanes))

    def _try(self, gpu: Gpu) -> None:
        """Run a small graph once.

        Raises:
            BackendError: If the provider doesn't load or run.
        """
        session = self._session(_probe())
        try:
            session.run(None, {"x": np.ones(1, np.float32)})
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            supported = ", ".join(f"{major}.{minor}" for major, minor in sorted(CAPABILITIES[self.name]))
            raise BackendError(
                f"ONNX Runtime {ort.__version__} can't run on {gpu}: {error} (version 1.31 supports compute capability "
                f"{supported})"
            ) from error

    def _session(self, model: onnx.ModelProto) -> ort.InferenceSession:
        providers: list[Any] = [(self._provider, self._settings)]
        if self._provider == _PROVIDERS["tensorrt"]:  # for the few nodes that TensorRT doesn't support
            providers.append((_PROVIDERS["cuda"], {"device_id": self._index}))
        try:
            session = ort.InferenceSession(
                model.SerializeToString(), self._options, providers=providers, disabled_optimizers=DISABLED
            )
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise BackendError(f"ONNX Runtime can't compile {model.graph.name}: {error}") from error
        used = session.get_providers()
        if used[0] != self._provider:
            raise BackendError(
                f"ONNX Runtime runs {model.graph.name} with {used[0]} instead of {self._provider}: CUDA or TensorRT "
                "didn't load, and its log says which library is missing (LD_LIBRARY_PATH)"
            )
        return session


def _probe() -> onnx.ModelProto:
    """Return a graph of one node, to find out whether a provider loads."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
