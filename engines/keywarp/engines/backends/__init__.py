"""The runtimes that execute a bundle's graphs, behind one interface."""

import importlib.util
import logging
import sys
from pathlib import Path
from typing import Literal, get_args

from keywarp.engines.backends.interface import Backend, DeviceTensor, Precision, Program
from keywarp.engines.devices import Choice, Gpu, choose, list_gpus, suited
from keywarp.engines.errors import BackendError

__all__ = [
    "AVAILABLE",
    "Backend",
    "BackendName",
    "DeviceTensor",
    "Precision",
    "Program",
    "choose_backend",
    "open_backend",
]

BackendName = Literal["auto", "tensorrt", "onnxruntime-tensorrt", "onnxruntime-cuda", "openvino", "onnxruntime"]
AVAILABLE = tuple(name for name in ("openvino", "onnxruntime") if importlib.util.find_spec(name))  # on the CPU
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
        name: `auto` takes the fastest that this machine has (see `keywarp.engines.devices.choose`).
        precision: Of the arithmetic; `auto` takes what the device is fastest with.
        threads: Of one inference on the CPU; 0 lets the runtime choose.
        cache: Folder for compiled graphs, where the runtime has such files.
        fallback: Whether the CPU may do where a GPU was asked for and can't.
        gpu: The GPU, where `name` is a backend for one; None: the best that the machine has.

    Raises:
        BackendError: The runtime or the device isn't there, or it lacks the precision.
    """
    if name not in get_args(BackendName):
        raise BackendError(f"there is no backend {name!r}: use one of {', '.join(get_args(BackendName))}")
    choice = choose_backend(name, None if gpu is None else [gpu])
    try:
        backend = _open(choice, precision, threads, cache)
    except BackendError as error:
        if not fallback or choice.backend in ("openvino", "onnxruntime"):
            raise
        choice = choose_backend("auto", gpus=[])
        backend = _open(choice, "auto", threads, cache)
        choice = Choice(choice.backend, (), f"{name} can't be used: {error}")
        log.warning("the CPU takes the place of a GPU: %s", choice.reason)
    backend.reason = choice.reason
    log.info("%s in %s on %s: %s", backend.name, backend.precision, backend.device, backend.reason)
    return backend


def choose_backend(name: BackendName = "auto", gpus: list[Gpu] | None = None) -> Choice:
    """Which runtime on which devices, and why; opens none.

    Args:
        name: As for `open_backend`.
        gpus: Of the machine; None looks for them.

    Raises:
        BackendError: No runtime is installed.
    """
    if name in ("openvino", "onnxruntime"):
        return Choice(name, (), "it was asked for")
    gpus = list_gpus() if gpus is None else gpus
    if name == "auto":
        choice = choose(_installed(bool(gpus)), gpus)
        if choice is None:
            raise BackendError("no runtime is installed: install the extra `cpu` (README, Install)")
        return choice
    # Where none is new enough as far as we know, the runtime says so itself, or knows better.
    return Choice(name, suited(name, gpus) or tuple(gpus[:1]), "it was asked for")


def _installed(on_gpu: bool) -> set[str]:
    """The backends whose runtimes are installed; importing ONNX Runtime tells of which kind it is."""
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


def _open(choice: Choice, precision: Precision, threads: int, cache: Path | None) -> Backend:
    name, gpu = choice.backend, choice.gpu
    if importlib.util.find_spec(name.partition("-")[0]) is None and name != "tensorrt":
        extra = "cpu" if name in ("openvino", "onnxruntime") else "gpu"
        raise BackendError(f"the runtime of {name} isn't installed: install the extra `{extra}` (README, Install)")
    if name == "openvino":
        # OpenVINO tells its maker whenever it is imported, and asks nobody; but not where this package is missing.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        from keywarp.engines.backends.openvino import OpenVINOBackend

        return OpenVINOBackend(precision, threads, cache)
    if name == "onnxruntime":
        from keywarp.engines.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(precision, threads)
    if gpu is None:
        extras = "extras `rtx` or `gpu`" if name == "tensorrt" else "extra `gpu`"
        raise BackendError(
            f"{name} needs an NVIDIA GPU, and none is found: is the driver installed, does the container have the GPU "
            f"(--gpus all), and are NVIDIA's packages there? They come with the {extras} (README, Install)"
        )
    if name == "tensorrt":
        from keywarp.engines.backends.tensorrt.backend import TensorRTBackend

        return TensorRTBackend(gpu, precision, cache)
    from keywarp.engines.backends.onnxruntime_gpu import OnnxRuntimeGpuBackend

    provider: Literal["cuda", "tensorrt"] = "cuda" if name == "onnxruntime-cuda" else "tensorrt"
    return OnnxRuntimeGpuBackend(provider, gpu, precision, cache)
