"""The kernels that TensorRT for RTX compiles on the GPU, kept for the next start. TensorRT is a fake."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from keywarp.engines.backends.tensorrt.library import Library
from keywarp.engines.backends.tensorrt.plan import Plan
from keywarp.engines.backends.tensorrt.plan_cache import PlanCache
from keywarp.engines.backends.tensorrt.plugin import WarpLauncher
from keywarp.engines.backends.tensorrt.runtime import TensorRTRuntime
from keywarp.engines.devices import Gpu
from tests.engines.tensorrt.fake_driver import FakeDriver
from tests.engines.tensorrt.test_plan_cache import plan
from tests.engines.tensorrt.test_several_gpus import FakeLogger

A10, A40, NEWER = (
    Gpu(0, name, driver, (8, 6), 0) for name, driver in (("A10", "580.65"), ("A40", "580.65"), ("A10", "590.10"))
)


class Mode(Enum):
    INPUT, OUTPUT = range(2)


@dataclass(eq=False)
class FakeRtx:
    """A TensorRT for RTX that compiles one kernel when a plan runs for the first time."""

    compiled: int = 0
    caches: list[list[bytes]] = field(default_factory=list)
    __version__ = "1.7.1.116"
    ILogger = FakeLogger
    TensorIOMode = Mode

    def nptype(self, _kind: object) -> type:
        return np.float32

    def Runtime(self, _logger: FakeLogger) -> Any:  # noqa: N802
        return SimpleNamespace(deserialize_cuda_engine=lambda _content: self)

    # -- the engine

    num_io_tensors = 0
    device_memory_size_v2 = 0

    def create_runtime_config(self) -> Any:
        kernels: list[bytes] = []

        def deserialize(blob: bytes) -> bool:
            kernels.extend(blob.split())
            return True

        cache = SimpleNamespace(serialize=lambda: b" ".join(kernels), deserialize=deserialize)
        self.caches.append(kernels)
        return SimpleNamespace(create_runtime_cache=lambda: cache, set_runtime_cache=lambda _cache: True)

    def create_execution_context(self, _config: Any) -> Any:
        kernels = self.caches[-1]

        def run(_stream: int) -> bool:
            if not kernels:
                self.compiled += 1
                kernels.append(b"kernel")
            return True

        return SimpleNamespace(execute_async_v3=run)


@pytest.mark.parametrize(("gpu", "compiled"), [(A10, 1), (A40, 2), (NEWER, 2)])
def test_kernels_are_compiled_once_for_each_kind_of_gpu_and_driver(gpu: Gpu, compiled: int, tmp_path: Path) -> None:
    fake, cache, content = FakeRtx(), PlanCache(tmp_path), plan()
    for used in (A10, gpu):
        load(fake, cache, content, used)
    assert fake.compiled == compiled
    assert len(list(tmp_path.glob("*.kernels"))) == compiled
    assert {file.read_bytes() for file in tmp_path.glob("*.kernels")} == {b"kernel"}


def load(fake: FakeRtx, cache: PlanCache, content: Plan, gpu: Gpu) -> None:
    """Load a plan and run it twice."""
    library = Library(fake, "tensorrt_rtx")
    runtime = TensorRTRuntime(library, WarpLauncher(FakeDriver(), (8, 6)), cache, gpu)
    [executable] = runtime.load(content)
    for _ in range(2):
        executable.enqueue({}, 0)
