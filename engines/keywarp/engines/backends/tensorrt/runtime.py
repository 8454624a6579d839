"""TensorRT's runtime: plans brought onto a GPU."""

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from keywarp.engines.backends.tensorrt.library import Library
from keywarp.engines.backends.tensorrt.plan import Plan
from keywarp.engines.backends.tensorrt.plan_cache import PlanCache
from keywarp.engines.backends.tensorrt.plugin import WarpLauncher, warps_on
from keywarp.engines.backends.tensorrt.program import TensorSpec
from keywarp.engines.errors import BackendError

log = logging.getLogger(__name__)


class TensorRTRuntime:
    """Loads plans on one GPU, which is the current one of the calling thread."""

    def __init__(self, library: Library, launcher: WarpLauncher, cache: PlanCache | None) -> None:
        """Start TensorRT's runtime.

        Args:
            library: TensorRT.
            launcher: Runs the plugin in Python.
            cache: Where the kernels are kept that TensorRT for RTX compiles for this very GPU.

        Raises:
            BackendError: It doesn't start.
        """
        self._library = library
        self._launcher = launcher
        self._cache = cache
        self._failures: list[str] = []
        self._logger = library.logger(self._failures.append)  # for as long as the runtime
        self._runtime = library.module.Runtime(self._logger)
        if self._runtime is None:
            raise BackendError(f"TensorRT's runtime can't start: {self._reason()}")

    def load(self, plan: Plan) -> "TensorRTExecutable":
        """Bring a plan onto the GPU.

        Raises:
            BackendError: TensorRT refuses it; says why.
        """
        with warps_on(self._launcher):
            engine = self._runtime.deserialize_cuda_engine(plan.content)
            if engine is None:
                raise BackendError(f"TensorRT can't load a plan for {plan.header.key.device}: {self._reason()}")
            context = self._context(engine, plan)
        if context is None:
            raise BackendError(f"TensorRT has no memory for a plan's activations: {self._reason()}")
        log.debug("a plan of %.1f MB; activations take %.1f MB", *_megabytes(plan, engine))
        return TensorRTExecutable(self._library, engine, context)

    def _context(self, engine: Any, plan: Plan) -> Any:
        """Where the engine runs. TensorRT for RTX compiles its kernels now, or takes them from its last time."""
        if not self._library.portable:
            return engine.create_execution_context()
        config = engine.create_runtime_config()
        compiled = config.create_runtime_cache()
        name = f"{hashlib.sha256(plan.header.model_dump_json().encode()).hexdigest()[:32]}.kernels"
        known = self._cache.recall(name) if self._cache else None
        usable = known is not None and compiled.deserialize(known)
        config.set_runtime_cache(compiled)
        context = engine.create_execution_context(config)
        if context is not None and self._cache and not usable:
            self._cache.remember(name, bytes(compiled.serialize()))
        return context

    def _reason(self) -> str:
        return "; ".join(self._failures[-3:]) or "it gives no reason"


class TensorRTExecutable:
    """See `Executable`."""

    def __init__(self, library: Library, engine: Any, context: Any) -> None:
        trt = library.module
        self._engine, self._context = engine, context
        self.inputs: Mapping[str, TensorSpec]
        self.outputs: Mapping[str, TensorSpec]
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        specs = {
            name: TensorSpec(np.dtype(trt.nptype(engine.get_tensor_dtype(name))), tuple(engine.get_tensor_shape(name)))
            for name in names
        }
        taken = {name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT}
        self.inputs = {name: spec for name, spec in specs.items() if name in taken}
        self.outputs = {name: spec for name, spec in specs.items() if name not in taken}

    def enqueue(self, addresses: Mapping[str, int], stream: int) -> None:
        """See `Executable.enqueue`."""
        for name, address in addresses.items():
            self._context.set_tensor_address(name, address)
        if not self._context.execute_async_v3(stream):
            raise BackendError("TensorRT failed to run a plan: the log says why")


def _megabytes(plan: Plan, engine: Any) -> tuple[float, float]:
    return len(plan.content) / 1e6, engine.device_memory_size_v2 / 1e6
