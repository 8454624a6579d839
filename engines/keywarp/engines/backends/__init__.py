"""The runtimes that run a bundle's graphs, behind one interface."""

import importlib.util
import logging
import sys
from pathlib import Path
from typing import Final, Literal, get_args

from keywarp.engines.backends.interface import Backend, DeviceTensor, Precision, Program
from keywarp.engines.devices import BackendChoice, Gpu, Runtime, choose, list_gpus, usable_gpus
from keywarp.engines.errors import BackendError

__all__ = [
    "AVAILABLE",
    "ON_CPU",
    "Backend",
    "BackendName",
    "DeviceTensor",
    "Precision",
    "Program",
    "choose_backend",
    "open_backend",
]

BackendName = Literal["auto", "tensorrt", "onnxruntime-tensorrt", "onnxruntime-cuda", "openvino", "onnxruntime"]
ON_CPU: Final[tuple[BackendName, ...]] = ("openvino", "onnxruntime")  # the backends that run on the CPU
# The installed backends for the CPU.
AVAILABLE = tuple(name for name in ("openvino", "onnxruntime") if importlib.util.find_spec(name))
log = logging.getLogger(__name__)


def open_backend(
    name: BackendName = "auto",
    precision: Precision = "auto",
    threads: int = 0,
    cache: Path | None = None,
    fallback: bool = False,
    gpu: Gpu | None = None,
) -> Backend:
    """Open a backend.

    Args:
        name: The backend, or `auto` for the fastest usable one (see `keywarp.engines.devices.choose`).
        precision: The precision of the arithmetic, or `auto` for the device's fastest that needs no graphs of its own.
            In `int8` only quantised graphs run in int8, see `keywarp.engines.precisions`.
        threads: The number of threads of one inference on the CPU, or 0 to let the runtime choose.
        cache: The folder for compiled graphs, for runtimes that keep them, or None to keep none.
        fallback: Whether to use the CPU if a GPU is requested but can't be used.
        gpu: The GPU for a GPU backend, or None for the machine's best.

    Raises:
        BackendError: If the runtime or the device is missing, or doesn't support the precision.
    """
    if name not in get_args(BackendName):
        raise BackendError(f"there is no backend {name!r}: use one of {', '.join(get_args(BackendName))}")
    choice = choose_backend(name, None if gpu is None else [gpu])
    try:
        backend = _open(choice, precision, threads, cache)
    except BackendError as error:
        if not fallback or choice.backend in ON_CPU:
            raise
        choice = choose_backend("auto", gpus=[])
        backend = _open(choice, "auto", threads, cache)
        choice = BackendChoice(choice.backend, (), f"{name} can't be used: {error}")
        log.warning("the CPU is used instead of a GPU: %s", choice.reason)
    backend.reason = choice.reason
    log.info("%s in %s on %s: %s", backend.name, backend.precision, backend.device, backend.reason)
    return backend


def choose_backend(name: BackendName = "auto", gpus: list[Gpu] | None = None) -> BackendChoice:
    """Choose a runtime and its devices without opening them.

    Args:
        name: See `open_backend`.
        gpus: The machine's GPUs, or None to look for them.

    Raises:
        BackendError: If no runtime is installed.
    """
    if name == "openvino" or name == "onnxruntime":
        return BackendChoice(name, (), "it was requested")
    gpus = list_gpus() if gpus is None else gpus
    from keywarp.engines.backends.tensorrt.library import installed

    tensorrt = installed() or "tensorrt"
    if name == "auto":
        choice = choose(_installed(bool(gpus)), gpus, tensorrt)
        if choice is None:
            raise BackendError("no runtime is installed: install the extra `cpu` (README, Install)")
        return choice
    # If none seems to be supported, try the first one: the runtime reports the error itself, or supports it after all.
    runtime: Runtime = tensorrt if name == "tensorrt" else name
    usable = usable_gpus(runtime, gpus)
    return BackendChoice(name, usable or tuple(gpus[:1]), "it was requested")


def _installed(on_gpu: bool) -> set[str]:
    """Return the backends whose runtimes are installed. ONNX Runtime is imported to find out whether it has CUDA."""
    found = set(AVAILABLE)
    if on_gpu:
        from keywarp.engines.backends.tensorrt.library import installed

        if installed() and importlib.util.find_spec("cuda"):
            found.add("tensorrt")
        if "onnxruntime" in found:
            from keywarp.engines.backends.ort import ort

            if "CUDAExecutionProvider" in ort.get_available_providers():
                found.add("onnxruntime-cuda")
    return found


def _open(choice: BackendChoice, precision: Precision, threads: int, cache: Path | None) -> Backend:
    name, gpu = choice.backend, choice.gpu
    if importlib.util.find_spec(name.partition("-")[0]) is None and name != "tensorrt":
        extra = "cpu" if name in ("openvino", "onnxruntime") else "gpu"
        raise BackendError(f"the runtime of {name} isn't installed: install the extra `{extra}` (README, Install)")
    if name == "openvino":
        # OpenVINO sends telemetry whenever it is imported, unless this package is missing.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        from keywarp.engines.backends.openvino import OpenVINOBackend

        return OpenVINOBackend(precision, threads, cache)
    if name == "onnxruntime":
        from keywarp.engines.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(precision, threads)
    if gpu is None:
        extras = "extras `rtx` or `gpu`" if name == "tensorrt" else "extra `gpu`"
        raise BackendError(
            f"{name} needs an NVIDIA GPU, but none was found: check that the driver is installed, that the container "
            f"has the GPU (--gpus all), and that NVIDIA's packages are installed with the {extras} (README, Install)"
        )
    if name == "tensorrt":
        from keywarp.engines.backends.tensorrt.backend import TensorRTBackend

        return TensorRTBackend(gpu, precision, cache)
    from keywarp.engines.backends.onnxruntime_gpu import OnnxRuntimeGpuBackend

    provider: Literal["cuda", "tensorrt"] = "cuda" if name == "onnxruntime-cuda" else "tensorrt"
    return OnnxRuntimeGpuBackend(provider, gpu, precision, cache)
