"""Find the GPUs of this machine, and the backend and precision that suit them.

The information comes from NVML, NVIDIA's management library, which is part of the driver. A query takes milliseconds
and starts nothing on the GPU. Without NVML's bindings (the extra `gpu`) or a driver, no GPU is found.
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
Runtime = Literal["tensorrt", "tensorrt_rtx", "tensorrt8", "onnxruntime-cuda", "onnxruntime-tensorrt"]
_TENSORRT: frozenset[Capability] = frozenset(
    [(7, 5), (8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (10, 3), (11, 0), (12, 0), (12, 1)]
)
_CUDA: frozenset[Capability] = frozenset([(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)])
# What each runtime has machine code for: TensorRT 10, TensorRT for RTX 1.7, TensorRT 8.5, ONNX Runtime 1.31. The last
# has no code that the driver could compile for other GPUs.
CAPABILITIES: dict[Runtime, frozenset[Capability]] = {
    "tensorrt": _TENSORRT,
    "tensorrt_rtx": frozenset([(7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1)]),
    "tensorrt8": frozenset(
        [(3, 5), (3, 7), (5, 0), (5, 2), (6, 0), (6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0)]
    ),
    "onnxruntime-cuda": _CUDA,
    "onnxruntime-tensorrt": _TENSORRT & _CUDA,
}
_NAMES: dict[Runtime, str] = {
    "tensorrt": "TensorRT",
    "tensorrt_rtx": "TensorRT for RTX",
    "tensorrt8": "TensorRT 8.5",
    "onnxruntime-cuda": "ONNX Runtime's CUDA provider",
    "onnxruntime-tensorrt": "ONNX Runtime's TensorRT provider",
}


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU that CUDA programs can use."""

    index: int  # in CUDA's order
    name: str
    driver: str  # version of the driver
    capability: Capability
    memory: int  # bytes

    def __str__(self) -> str:
        return (
            f"{self.name} (compute capability {self.capability_text}, "
            f"{self.memory / 2**30:.0f} GiB, driver {self.driver})"
        )

    @property
    def capability_text(self) -> str:
        """The compute capability as text, such as 8.6."""
        return f"{self.capability[0]}.{self.capability[1]}"

    @property
    def label(self) -> str:
        """A name that distinguishes it from the machine's other GPUs."""
        return f"{self.name} (GPU {self.index})"

    @property
    def best_precision(self) -> Literal["fp16", "fp32"]:
        """fp16 if it is at least twice as fast as fp32: from Volta on, and on a few earlier ones (5.3, 6.0, 6.2)."""
        return "fp16" if self.capability >= (7, 0) or self.capability in ((5, 3), (6, 0), (6, 2)) else "fp32"


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """A backend, the GPUs that it can use, and why it was chosen."""

    backend: str
    gpus: tuple[Gpu, ...]  # that the backend can use, the best first; empty if it runs on the CPU or finds none
    reason: str

    @property
    def gpu(self) -> Gpu | None:
        """The best of the GPUs, or None."""
        return next(iter(self.gpus), None)


def usable_gpus(runtime: Runtime, gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    """Return the GPUs that a runtime supports, the best first."""
    able = (gpu for gpu in gpus if gpu.capability in CAPABILITIES[runtime])
    return tuple(sorted(able, key=lambda gpu: (gpu.capability, gpu.memory), reverse=True))


def choose(
    installed: Collection[str],
    gpus: Collection[Gpu],
    tensorrt: Literal["tensorrt", "tensorrt_rtx", "tensorrt8"] = "tensorrt",
) -> BackendChoice | None:
    """Choose the fastest usable backend.

    The order is TensorRT, ONNX Runtime on CUDA, OpenVINO, ONNX Runtime on the CPU.

    Args:
        installed: The names of the backends whose runtimes are installed.
        gpus: The machine's GPUs.
        tensorrt: The TensorRT that the backend `tensorrt` uses.

    Returns:
        The choice, or None if no runtime is installed.
    """
    reasons: list[str] = []
    runtimes: dict[str, Runtime] = {"tensorrt": tensorrt, "onnxruntime-cuda": "onnxruntime-cuda"}
    for backend, runtime in runtimes.items() if gpus else ():
        able = usable_gpus(runtime, gpus)
        if not able:
            lacking = " and ".join(sorted({gpu.capability_text for gpu in gpus}))
            reasons.append(f"{_NAMES[runtime]} doesn't support compute capability {lacking}")
        elif backend not in installed:
            reasons.append(f"{backend} isn't installed")
        else:
            return BackendChoice(backend, able, "; ".join([_found(able), *reasons]))
    reasons.insert(0, _found(gpus) if gpus else "there is no NVIDIA GPU")
    for backend in ("openvino", "onnxruntime"):
        if backend in installed:
            return BackendChoice(backend, (), "; ".join(reasons))
        reasons.append(f"{backend} isn't installed")
    return None


def list_gpus() -> list[Gpu]:
    """Return the GPUs that CUDA may use (`CUDA_VISIBLE_DEVICES`), in CUDA's order. Without a driver there are none."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return []
    return read_gpus(nvml, _find_in_cuda)


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """A GPU as CUDA sees it, which may be a part of the GPU that NVML sees (MIG)."""

    index: int
    name: str | None = None  # None if only NVML knows it
    memory: int | None = None  # bytes


def read_gpus(nvml: Any, find_in_cuda: Callable[[str, int], CudaDevice | None]) -> list[Gpu]:
    """Return the GPUs that CUDA may use, in CUDA's order, from the given sources.

    Args:
        nvml: The module `pynvml`.
        find_in_cuda: A function from a GPU's PCI address and index in NVML's order to the same GPU in CUDA, or None if
            it is hidden from CUDA.
    """
    gpus: list[Gpu] = []
    with _opened(nvml) as opened:
        for number in range(nvml.nvmlDeviceGetCount() if opened else 0):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(number)
                device = find_in_cuda(_text(nvml.nvmlDeviceGetPciInfo(handle).busId), number)
                if device is None:
                    continue
                major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
                gpus.append(
                    Gpu(
                        index=device.index,
                        name=device.name or _text(nvml.nvmlDeviceGetName(handle)),
                        driver=_text(nvml.nvmlSystemGetDriverVersion()),
                        capability=(int(major), int(minor)),
                        memory=device.memory or int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
                    )
                )
            except nvml.NVMLError as error:  # the GPU was lost, or isn't accessible
                log.warning("GPU %d is ignored: %s", number, error)
    return sorted(gpus, key=lambda gpu: gpu.index)


@contextmanager
def _opened(nvml: Any) -> Iterator[bool]:
    """Start NVML, and stop it at the end. Yields False if there is no driver."""
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


def _find_in_cuda(bus: str, number: int) -> CudaDevice | None:
    """Return a GPU as CUDA sees it: CUDA orders by speed and may hide some. Without its bindings, use NVML's order."""
    try:
        cuda: Any = importlib.import_module("cuda.bindings.driver")
    except ImportError:
        return CudaDevice(number)
    success = cuda.CUresult.CUDA_SUCCESS
    with contextlib.suppress(RuntimeError):  # the bindings find no driver, as in a container with NVML alone
        if cuda.cuInit(0)[0] == success:
            status, device = cuda.cuDeviceGetByPCIBusId(bus.encode())
            if status != success:
                return None
            # Of a part of a GPU (MIG), the name says which part it is, so that plans for it aren't used elsewhere.
            named, name = cuda.cuDeviceGetName(128, device)
            sized, memory = cuda.cuDeviceTotalMem(device)
            return CudaDevice(
                int(device),
                _text(name).partition("\0")[0] if named == success else None,
                int(memory) if sized == success else None,
            )
    return None


def _found(gpus: Collection[Gpu]) -> str:
    return f"found {' and '.join(map(str, gpus))}"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
