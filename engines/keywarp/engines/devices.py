"""The GPUs of this machine, and which backend and precision suit them.

Facts come from NVML, NVIDIA's management library, which the driver brings; asking it costs milliseconds and starts
nothing on the GPU. Without its bindings (the extra `gpu`) or without a driver there is no GPU for us.
"""

import contextlib
import importlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

log = logging.getLogger(__name__)

Capability = tuple[int, int]
TENSORRT_SINCE: Capability = (7, 5)  # Turing: TensorRT 10.x and TensorRT for RTX know no older GPUs
CUDA_SINCE: Capability = (7, 0)  # ONNX Runtime's CUDA builds of today
SINCE = {"tensorrt": TENSORRT_SINCE, "onnxruntime-cuda": CUDA_SINCE, "onnxruntime-tensorrt": TENSORRT_SINCE}


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU that CUDA programs can use."""

    index: int  # as CUDA counts
    name: str
    driver: str  # its version
    capability: Capability
    memory: int  # bytes

    def __str__(self) -> str:
        return (
            f"{self.name} (compute capability {self.capability[0]}.{self.capability[1]}, "
            f"{self.memory / 2**30:.0f} GiB, driver {self.driver})"
        )

    @property
    def label(self) -> str:
        """What tells it from the machine's other GPUs."""
        return f"{self.name} (GPU {self.index})"

    @property
    def best_precision(self) -> Literal["fp16", "fp32"]:
        """fp16 where its arithmetic is at least twice as fast: Volta and newer, and a few before (5.3, 6.0, 6.2)."""
        return "fp16" if self.capability >= (7, 0) or self.capability in ((5, 3), (6, 0), (6, 2)) else "fp32"


@dataclass(frozen=True, slots=True)
class Choice:
    """What `auto` stands for on this machine."""

    backend: str
    gpus: tuple[Gpu, ...]  # that it can use, the best first; empty: it runs on the CPU, or there is none for it
    reason: str

    @property
    def gpu(self) -> Gpu | None:
        """The best of them."""
        return next(iter(self.gpus), None)


def suited(backend: str, gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    """Those of the GPUs that are new enough for a backend, the best first."""
    able = (gpu for gpu in gpus if gpu.capability >= SINCE[backend])
    return tuple(sorted(able, key=lambda gpu: (gpu.capability, gpu.memory), reverse=True))


def choose(installed: Collection[str], gpus: Collection[Gpu]) -> Choice | None:
    """The fastest backend that this machine has: TensorRT, ONNX Runtime on CUDA, OpenVINO, ONNX Runtime on the CPU.

    Args:
        installed: Names of backends whose runtimes are installed.
        gpus: Of the machine.

    Returns:
        None if nothing is installed.
    """
    why: list[str] = []
    for backend in ("tensorrt", "onnxruntime-cuda") if gpus else ():
        able = suited(backend, gpus)
        if not able:
            why.append("{} needs compute capability {}.{}".format(backend, *SINCE[backend]))
        elif backend not in installed:
            why.append(f"{backend} isn't installed")
        else:
            return Choice(backend, able, "; ".join([_are_there(able), *why]))
    why.insert(0, _are_there(gpus) if gpus else "there is no NVIDIA GPU")
    for backend in ("openvino", "onnxruntime"):
        if backend in installed:
            return Choice(backend, (), "; ".join(why))
        why.append(f"{backend} isn't installed")
    return None


def list_gpus() -> list[Gpu]:
    """The GPUs that CUDA may use (`CUDA_VISIBLE_DEVICES`), in its order; none without a driver."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return []
    return read_gpus(nvml, _cuda_index)


def read_gpus(nvml: Any, cuda_index: Callable[[str, int], int | None]) -> list[Gpu]:
    """As `list_gpus`, with the sources named.

    Args:
        nvml: The module `pynvml`.
        cuda_index: From a GPU's PCI address and its place in NVML's order to its place in CUDA's; None: it is hidden.
    """
    gpus: list[Gpu] = []
    with _opened(nvml) as opened:
        for number in range(nvml.nvmlDeviceGetCount() if opened else 0):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(number)
                index = cuda_index(_text(nvml.nvmlDeviceGetPciInfo(handle).busId), number)
                if index is None:
                    continue
                major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
                gpus.append(
                    Gpu(
                        index=index,
                        name=_text(nvml.nvmlDeviceGetName(handle)),
                        driver=_text(nvml.nvmlSystemGetDriverVersion()),
                        capability=(int(major), int(minor)),
                        memory=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
                    )
                )
            except nvml.NVMLError as error:  # one that is lost, or not ours
                log.warning("GPU %d is left out: %s", number, error)
    return sorted(gpus, key=lambda gpu: gpu.index)


@contextmanager
def _opened(nvml: Any) -> Iterator[bool]:
    """NVML, started; False where there is no driver."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        log.debug("no GPU: %s", error)
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _cuda_index(bus: str, number: int) -> int | None:
    """Ask CUDA, which orders by speed and hides some; without its bindings, count as NVML does."""
    try:
        cuda: Any = importlib.import_module("cuda.bindings.driver")
    except ImportError:
        return number
    success = cuda.CUresult.CUDA_SUCCESS
    with contextlib.suppress(RuntimeError):  # the bindings find no driver: a container with NVML alone
        if cuda.cuInit(0)[0] == success:
            status, device = cuda.cuDeviceGetByPCIBusId(bus.encode())
            return int(device) if status == success else None
    return None


def _are_there(gpus: Collection[Gpu]) -> str:
    return f"{' and '.join(map(str, gpus))} {'is' if len(gpus) == 1 else 'are'} there"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
