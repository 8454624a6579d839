"""TensorRT's runtime, which loads plans onto a GPU."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keywarp.engines.backends.tensorrt.library import Library
from keywarp.engines.backends.tensorrt.plan import Plan
from keywarp.engines.backends.tensorrt.plan_cache import PlanCache
from keywarp.engines.backends.tensorrt.plugin import WarpLauncher, launching_with
from keywarp.engines.backends.tensorrt.program import Executable, TensorSpec
from keywarp.engines.devices import Gpu
from keywarp.engines.errors import BackendError

log = logging.getLogger(__name__)


class TensorRTRuntime:
    """Loads plans onto the calling thread's current GPU."""

    def __init__(self, library: Library, launcher: WarpLauncher, cache: PlanCache | None, gpu: Gpu) -> None:
        """Start TensorRT's runtime.

        Args:
            library: The TensorRT to use.
            launcher: Runs the Python plugin.
            cache: The cache for the kernels that TensorRT for RTX compiles for this GPU, or None to keep none.
            gpu: The GPU.

        Raises:
            BackendError: If the runtime doesn't start.
        """
        self._library = library
        self._launcher = launcher
        self._cache = cache
        self._gpu = gpu
        if library.name == "tensorrt8":
            return
        self._failures: list[str] = []
        self._logger = library.logger(self._failures.append)  # must live as long as the runtime
        self._runtime = library.module.Runtime(self._logger)
        if self._runtime is None:
            raise BackendError(f"TensorRT's runtime can't start: {self._reason()}")

    def load(self, plan: Plan, count: int = 1) -> tuple[Executable, ...]:
        """Load a plan onto the GPU.

        Args:
            plan: The plan.
            count: The number of executables that can run at the same time. They share the plan's weights, and each has
                activations of its own. Those of TensorRT 8.5 each have weights, too.

        Raises:
            BackendError: If TensorRT refuses the plan. The message has TensorRT's reason.
        """
        if self._library.name == "tensorrt8":
            load = self._library.module.load
            return tuple(load(plan.content, self._gpu.name, self._launcher.launch) for _ in range(count))
        with launching_with(self._launcher):
            engine = self._runtime.deserialize_cuda_engine(plan.content)
            if engine is None:
                raise BackendError(f"TensorRT can't load a plan for {plan.header.key.device}: {self._reason()}")
            contexts, save_kernels = self._contexts(engine, plan, count)
        if None in contexts:
            raise BackendError(f"TensorRT can't allocate memory for a plan's activations: {self._reason()}")
        log.debug("loaded a plan of %.1f MB; its activations take %d x %.1f MB", *_megabytes(plan, engine, count))
        saving = [save_kernels, *[None] * (count - 1)]
        return tuple(
            TensorRTExecutable(self._library, engine, *context) for context in zip(contexts, saving, strict=True)
        )

    def _contexts(self, engine: Any, plan: Plan, count: int) -> tuple[list[Any], Callable[[], None] | None]:
        """Return execution contexts, and what keeps the kernels that the first run compiles, if any will be."""
        if not self._library.portable:
            return [engine.create_execution_context() for _ in range(count)], None
        config = engine.create_runtime_config()
        compiled = config.create_runtime_cache()
        cache, name = self._cache, self._kernels_name(plan)
        known = cache.read(name) if cache else None
        usable = known is not None and compiled.deserialize(known)
        config.set_runtime_cache(compiled)
        contexts = [engine.create_execution_context(config) for _ in range(count)]
        if cache is None or usable:
            return contexts, None
        return contexts, lambda: _save(cache, name, compiled)

    def _kernels_name(self, plan: Plan) -> str:
        """Return the name of the file of a plan's kernels. They fit one kind of GPU and one driver, unlike the plan."""
        key = f"{plan.header.model_dump_json()} {self._gpu.name} {self._gpu.driver}"
        return f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.kernels"

    def _reason(self) -> str:
        return "; ".join(self._failures[-3:]) or "it gives no reason"


class TensorRTExecutable:
    """A plan that TensorRT has loaded; see `Executable`."""

    def __init__(self, library: Library, engine: Any, context: Any, started: Callable[[], None] | None = None) -> None:
        """Read the plan's inputs and outputs.

        Args:
            library: The TensorRT that loaded it.
            engine: TensorRT's engine.
            context: TensorRT's execution context.
            started: Called once when the first run is queued, until when TensorRT for RTX compiles kernels.
        """
        trt = library.module
        self._engine, self._context, self._started = engine, context, started
        self.inputs: Mapping[str, TensorSpec]
        self.outputs: Mapping[str, TensorSpec]
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        specs = {
            name: TensorSpec(np.dtype(trt.nptype(engine.get_tensor_dtype(name))), tuple(engine.get_tensor_shape(name)))
            for name in names
        }
        input_names = {name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT}
        self.inputs = {name: spec for name, spec in specs.items() if name in input_names}
        self.outputs = {name: spec for name, spec in specs.items() if name not in input_names}

    def enqueue(self, addresses: Mapping[str, int], stream: int) -> None:
        """See `Executable.enqueue`."""
        for name, address in addresses.items():
            self._context.set_tensor_address(name, address)
        if not self._context.execute_async_v3(stream):
            raise BackendError("TensorRT failed to run a plan: see the log for the reason")
        if self._started is not None:
            self._started()
            self._started = None


def _save(cache: PlanCache, name: str, compiled: Any) -> None:
    cache.write(name, bytes(compiled.serialize()))


def _megabytes(plan: Plan, engine: Any, count: int) -> tuple[float, int, float]:
    return len(plan.content) / 1e6, count, engine.device_memory_size_v2 / 1e6
