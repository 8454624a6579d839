"""Import TensorRT: NVIDIA's `tensorrt` 10.x, `tensorrt_rtx`, which has the same API, or 8.5 by our own library."""

import ctypes
import importlib
import importlib.util
import logging
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from keywarp.engines.backends.tensorrt.tensorrt8 import TensorRT8, find_library
from keywarp.engines.errors import BackendError

LibraryName = Literal["tensorrt", "tensorrt_rtx", "tensorrt8"]
# The packages. The first one that is installed is used, and TensorRT 8.5 if there is none.
PACKAGES: tuple[Literal["tensorrt", "tensorrt_rtx"], ...] = ("tensorrt", "tensorrt_rtx")
MAJOR = {"tensorrt": 10, "tensorrt_rtx": 1}  # supported major versions
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Library:
    """One of the libraries, imported."""

    module: Any  # the package, or a `TensorRT8`
    name: LibraryName

    @property
    def version(self) -> str:
        """The package's version."""
        return str(self.module.__version__)

    @property
    def generation(self) -> int:
        """The major version of TensorRT whose C++ classes it has, which a C++ plugin must be built for."""
        return 11 if self.name == "tensorrt_rtx" else int(self.version.split(".")[0])

    @property
    def portable(self) -> bool:
        """Whether plans run on every GPU of a compute capability and can be built without a GPU.

        TensorRT times kernels on the GPU that it builds for. TensorRT for RTX chooses them when it loads the plan.
        """
        return self.name == "tensorrt_rtx"

    def logger(self, failure: Callable[[str], None]) -> Any:
        """Return a logger for the library that forwards its messages to our log, and its errors also to `failure`."""
        return _logger_class(self.module)(failure)


def installed() -> LibraryName | None:
    """Return the name of the library that `open_library` would import, without importing it."""
    package = next((name for name in PACKAGES if importlib.util.find_spec(name)), None)
    return package or ("tensorrt8" if find_library() else None)


@cache
def open_library() -> Library:
    """Import TensorRT.

    Raises:
        BackendError: If no library is installed, it doesn't load, or its major version isn't supported.
    """
    name = installed()
    if name is None:
        raise BackendError("TensorRT isn't installed: install the extra `gpu` or `rtx` (README, Install)")
    if name == "tensorrt8":
        path = find_library()
        assert path is not None
        return Library(TensorRT8(path), name)
    try:
        if name == "tensorrt_rtx":
            _name_the_plugin_registry()
        library = Library(importlib.import_module(name), name)
    except (ImportError, OSError) as error:
        raise BackendError(f"{name} is installed but doesn't load: {error}") from error
    if int(library.version.split(".")[0]) != MAJOR[name]:
        raise BackendError(f"{name} {library.version} is installed, but Keywarp needs {MAJOR[name]}.x")
    return library


@cache
def _name_the_plugin_registry() -> "tempfile.TemporaryDirectory[str] | None":
    """Let the ONNX parser of TensorRT for RTX find plugins.

    The parser looks for their registry in `libtensorrt_rtx.so`, and ends the process if it isn't found. The wheel only
    has the file `libtensorrt_rtx.so.1`. If the parser is loaded from a folder of links, it searches that folder.

    Returns:
        The folder, which must exist until the process ends.
    """
    wheel = importlib.util.find_spec("tensorrt_rtx_libs")
    if not sys.platform.startswith("linux") or wheel is None or not wheel.submodule_search_locations:
        return None  # a system package has both names
    if "tensorrt_rtx" in sys.modules:
        raise BackendError(
            "tensorrt_rtx was imported before Keywarp opened it, so it can't find plugins: import it later"
        )
    links = tempfile.TemporaryDirectory(prefix="keywarp-")
    for file in Path(wheel.submodule_search_locations[0]).glob("*.so.*"):
        for name in (file.name, file.name.partition(".so")[0] + ".so"):
            (Path(links.name) / name).symlink_to(file)
    for parser in Path(links.name).glob("libtensorrt_onnxparser_rtx.so.*"):
        ctypes.CDLL(str(parser))
    return links


@cache
def _logger_class(module: Any) -> type[Any]:
    """Return the logger's class. There is only one, since TensorRT keeps a process's first logger for some messages."""
    severities = module.ILogger.Severity
    levels = {
        severities.INTERNAL_ERROR: logging.ERROR,
        severities.ERROR: logging.ERROR,
        severities.WARNING: logging.INFO,  # users can't change the causes, such as weights clipped to fp16's range
        severities.INFO: logging.DEBUG,
    }

    class _Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self, failure: Callable[[str], None]) -> None:
            module.ILogger.__init__(self)
            self._failure = failure

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, 0)  # 0 for verbose messages, which are left out
            if level:
                log.log(min(level, logging.INFO), "%s", message)
            if level == logging.ERROR:
                self._failure(message)

    return _Logger
