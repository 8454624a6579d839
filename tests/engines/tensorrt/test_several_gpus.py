"""Two GPUs in one machine: each backend uses its own, whichever thread calls. CUDA and TensorRT are fakes."""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keywarp.engines import open_backend
from keywarp.engines.backends.tensorrt import backend as backend_module
from keywarp.engines.backends.tensorrt.driver import CudaDriver
from keywarp.engines.backends.tensorrt.library import Library
from keywarp.engines.backends.tensorrt.plan import Plan, PlanHeader, PlanKey
from keywarp.engines.backends.tensorrt.plan_cache import FOLDER, PlanCache
from keywarp.engines.backends.tensorrt.plugin import VARIABLE
from keywarp.engines.devices import Gpu
from keywarp.engines.fusion import fuse_key
from tests.engines.tensorrt.fake_driver import FakeDriver, active
from tests.tiny_bundle import tiny_bundle

FIRST, SECOND = (Gpu(index, "NVIDIA A10", "580.65", (8, 6), 24 * 2**30) for index in (0, 1))


# -- TensorRT ----------------------------------------------------------------------------------------------------------


class Severity(Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)


class FakeLogger:
    Severity = Severity


@dataclass(eq=False)
class FakeTensorRT:
    """The part of `tensorrt` that loads plans. It records the thread's current GPU."""

    loaded: list[tuple[int, bytes]] = field(default_factory=list)
    __version__ = "10.16.1.11"
    ILogger = FakeLogger

    def Runtime(self, logger: FakeLogger) -> Any:  # noqa: N802
        assert isinstance(logger, FakeLogger)
        return SimpleNamespace(deserialize_cuda_engine=self.load)

    def load(self, content: bytes) -> Any:
        driver = active()
        assert driver is not None
        self.loaded.append((driver.index, content))
        return SimpleNamespace(num_io_tensors=0, device_memory_size_v2=0, create_execution_context=SimpleNamespace)


def test_backends_of_equal_gpus_load_the_same_plan_each_onto_its_own_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, drivers = FakeTensorRT(), {index: FakeDriver(index) for index in (0, 1)}
    monkeypatch.setenv(VARIABLE, "none")
    monkeypatch.setattr(backend_module, "open_library", lambda: Library(fake, "tensorrt"))
    monkeypatch.setattr(backend_module, "CudaDriver", drivers.__getitem__)
    backends = [open_backend("tensorrt", cache=tmp_path, gpu=gpu) for gpu in (FIRST, SECOND)]
    assert [backend.device for backend in backends] == ["NVIDIA A10 (GPU 0)", "NVIDIA A10 (GPU 1)"]

    key = fuse_key(tiny_bundle(tmp_path / "tiny"), 64, 96)
    content = b"a plan for an A10"
    header = PlanHeader(
        key=PlanKey(
            library="tensorrt",
            version=fake.__version__,
            device="NVIDIA A10",
            capability="8.6",
            precision="fp16",
            warp="gridsample",
            graph=hashlib.sha256(key.model.SerializeToString(deterministic=True)).hexdigest(),
            resident=(),
        ),
        sha256=hashlib.sha256(content).hexdigest(),
        warps=0,
        seconds=1.0,
    )
    PlanCache(tmp_path / FOLDER).save(Plan(header=header, content=content))
    for backend in backends:
        backend.compile(key.model)
    assert fake.loaded == [(0, content), (1, content)]


# -- CUDA --------------------------------------------------------------------------------------------------------------


class Status(Enum):
    CUDA_SUCCESS, CUDA_ERROR_OUT_OF_MEMORY = range(2)


@dataclass
class FakeCuda:
    """`cuda.bindings.driver` on one thread. Contexts have the numbers of their devices."""

    stack: list[int | None] = field(default_factory=lambda: [None])
    memory: dict[int, int | None] = field(default_factory=dict)  # the context of each address
    flags: dict[int, int] = field(default_factory=dict)  # of each device's context
    CUresult = Status
    CUctx_flags = SimpleNamespace(CU_CTX_SCHED_BLOCKING_SYNC=SimpleNamespace(value=4))

    def cuInit(self, _flags: int) -> tuple[Status]:  # noqa: N802
        return (Status.CUDA_SUCCESS,)

    def cuDeviceGet(self, index: int) -> tuple[Status, int]:  # noqa: N802
        return Status.CUDA_SUCCESS, index

    def cuDevicePrimaryCtxSetFlags(self, device: int, flags: int) -> tuple[Status]:  # noqa: N802
        assert device not in self.stack
        self.flags[device] = flags
        return (Status.CUDA_SUCCESS,)

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[Status, int]:  # noqa: N802
        return Status.CUDA_SUCCESS, device

    def cuCtxSetCurrent(self, context: int) -> tuple[Status]:  # noqa: N802
        self.stack[-1] = context
        return (Status.CUDA_SUCCESS,)

    def cuCtxPushCurrent(self, context: int) -> tuple[Status]:  # noqa: N802
        self.stack.append(context)
        return (Status.CUDA_SUCCESS,)

    def cuCtxPopCurrent(self) -> tuple[Status, int | None]:  # noqa: N802
        return Status.CUDA_SUCCESS, self.stack.pop()

    def cuMemAlloc(self, size: int) -> tuple[Status, int]:  # noqa: N802
        if size > 1000:
            return Status.CUDA_ERROR_OUT_OF_MEMORY, 0
        address = 0x1000 * (len(self.memory) + 1)
        self.memory[address] = self.stack[-1]
        return Status.CUDA_SUCCESS, address

    def cuMemFree(self, address: int) -> tuple[Status]:  # noqa: N802
        assert self.memory.pop(address) == self.stack[-1]
        return (Status.CUDA_SUCCESS,)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(driver=fake))
    yield fake
    assert len(fake.stack) == 1


def test_calls_reach_their_gpu_and_keep_the_threads_current_gpu(cuda: FakeCuda) -> None:
    """A finalizer may free memory of one GPU on a thread that works for the other one."""
    first, second = CudaDriver(0), CudaDriver(1)
    first.activate()
    address = second.allocate(10)
    assert cuda.memory == {address: 1}
    assert cuda.flags == {0: 4, 1: 4}  # threads that wait for the GPU sleep
    assert cuda.stack == [0]
    with pytest.raises(Exception, match="cuMemAlloc failed with CUDA_ERROR_OUT_OF_MEMORY"):
        second.allocate(1001)
    second.free(address)
    assert cuda.stack == [0]
    second.activate()
    assert cuda.stack == [1]
