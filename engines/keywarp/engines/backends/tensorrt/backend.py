"""The TensorRT backend, which compiles graphs into plans and loads them."""

import logging
from pathlib import Path

import onnx

from keywarp.engines.backends.interface import Precision
from keywarp.engines.backends.tensorrt.builder import PlanBuilder, Target
from keywarp.engines.backends.tensorrt.device_frames import DeviceFrames
from keywarp.engines.backends.tensorrt.device_last_step import FinishedExecutable
from keywarp.engines.backends.tensorrt.device_memory import DeviceMemory
from keywarp.engines.backends.tensorrt.driver import CudaDriver, Driver
from keywarp.engines.backends.tensorrt.library import open_library
from keywarp.engines.backends.tensorrt.plan_cache import FOLDER, PlanCache
from keywarp.engines.backends.tensorrt.plugin import WarpLauncher
from keywarp.engines.backends.tensorrt.program import Executable, TensorRTProgram, uses_cuda_graphs
from keywarp.engines.backends.tensorrt.runtime import TensorRTRuntime
from keywarp.engines.devices import Gpu
from keywarp.engines.errors import BackendError
from keywarp.engines.fusion import GraphStyle
from keywarp.engines.last_step import LastStep, cut_last_step

log = logging.getLogger(__name__)


class TensorRTBackend:
    """Compiles with TensorRT or TensorRT for RTX, for one NVIDIA GPU."""

    name = "tensorrt"
    reason = "it was requested"
    in_flight = True

    def __init__(
        self, gpu: Gpu, precision: Precision = "auto", cache: Path | None = None, driver: Driver | None = None
    ) -> None:
        """Open the GPU.

        Args:
            gpu: The GPU to run on.
            precision: `fp32`, `fp16`, `int8` for quantised graphs, or `auto` for fp16 where the GPU is faster with it.
            cache: The folder for plans, or None to build them again each time.
            driver: The GPU's driver, or None to open it.

        Raises:
            BackendError: If TensorRT or the driver is missing, or the precision isn't supported.
        """
        if precision == "bf16":
            raise BackendError("Keywarp runs TensorRT in fp16 or fp32, not in bf16: use precision fp16, fp32 or auto")
        self.precision = gpu.best_precision if precision == "auto" else precision
        self.device = gpu.label
        library = open_library()
        self._driver = driver or CudaDriver(gpu.index)
        self._driver.activate()
        self._memory = DeviceMemory(self._driver)
        self._capability = gpu.capability
        compiles = _has_compiler()
        self.style = GraphStyle(last_step=compiles)
        self.frames = DeviceFrames(self._driver, self._memory, gpu.capability, gpu.index) if compiles else None
        launcher = WarpLauncher(self._driver, gpu.capability)
        plans = PlanCache(cache / FOLDER) if cache else None
        target = Target(gpu.capability, gpu.name)
        rest = gpu.best_precision if self.precision == "int8" else self.precision  # of layers that aren't quantised
        self.builder = PlanBuilder(library, target, rest, plans, launcher)
        self._runtime = TensorRTRuntime(library, launcher, plans, gpu)
        log.info("%s %s on %s, %s; warp: %s", library.name, library.version, gpu, self.precision, self.builder.warp)

    @property
    def memory(self) -> int:
        """The device memory in buffers, in bytes: images, results, and the key features of all streams."""
        return self._memory.used

    def compile(self, model: onnx.ModelProto, resident: frozenset[str] = frozenset()) -> TensorRTProgram:
        """See `Backend.compile`."""
        return self.compile_lanes(model, resident, 1)[0]

    def compile_lanes(
        self, model: onnx.ModelProto, resident: frozenset[str] = frozenset(), lanes: int = 2
    ) -> tuple[TensorRTProgram, ...]:
        """See `Backend.compile_lanes`. The lanes share the weights; each has activations and a stream of its own."""
        self._driver.activate()
        graph, step = cut_last_step(model)
        plan, _ = self.builder.plan(graph, resident)
        return tuple(
            TensorRTProgram(
                self._finished(executable, step),
                resident,
                self._driver,
                self._memory,
                model.graph.name,
                replays=uses_cuda_graphs(),
            )
            for executable in self._runtime.load(plan, lanes)
        )

    def _finished(self, executable: Executable, step: LastStep | None) -> Executable:
        """Return an executable with the last step after it, if there is one."""
        if step is None:
            return executable
        return FinishedExecutable(executable, step, self._driver, self._memory, self._capability)


def _has_compiler() -> bool:
    """Return whether CUDA's compiler is installed, which the kernels of the last step need."""
    try:
        import cuda.bindings.nvrtc  # noqa: F401 - only to find out whether it is installed
    except ImportError as error:
        log.warning("detection and labels end on the host, since their kernels can't be compiled: %s", error)
        return False
    return True
