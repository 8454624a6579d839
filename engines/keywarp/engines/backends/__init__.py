"""The runtimes that execute a bundle's graphs, behind one interface."""

import importlib.util
import sys
from pathlib import Path
from typing import Literal

from keywarp.engines.backends.interface import Backend, DeviceTensor, Precision, Program
from keywarp.engines.errors import BackendError

__all__ = ["AVAILABLE", "Backend", "BackendName", "DeviceTensor", "Precision", "Program", "open_backend"]

BackendName = Literal["auto", "openvino", "onnxruntime"]
AVAILABLE = tuple(name for name in ("openvino", "onnxruntime") if importlib.util.find_spec(name))


def open_backend(
    name: BackendName = "auto", precision: Precision = "auto", threads: int = 0, cache: Path | None = None
) -> Backend:
    """Open a backend.

    Args:
        name: `auto` takes the first installed of OpenVINO and ONNX Runtime.
        precision: Of the arithmetic; `auto` takes what the device is fastest with.
        threads: Of one inference; 0 lets the runtime choose.
        cache: Folder for compiled graphs, where the runtime has such files.

    Raises:
        BackendError: The runtime isn't installed, or the device lacks the precision.
    """
    chosen = (AVAILABLE[0] if AVAILABLE else "") if name == "auto" else name
    if chosen not in AVAILABLE:
        raise BackendError(f"no runtime for backend {name!r} is installed: install the extra `cpu` (README, Install)")
    if chosen == "openvino":
        # OpenVINO tells its maker whenever it is imported, and asks nobody; but not where this package is missing.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        from keywarp.engines.backends.openvino import OpenVINOBackend

        return OpenVINOBackend(precision, threads, cache)
    from keywarp.engines.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(precision, threads)
