"""TensorRT 8.5, the last version for Kepler (K40), which also runs on all later GPUs up to Hopper.

NVIDIA's own bindings for it need Python 3.10. This calls `tensorrt8.cpp`, a library of our own with a C interface that
must be compiled (docs/gpu.md). Its plugin for the warp asks back for the launch of its kernel.
"""

import ctypes
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import local
from typing import Any, Final

import numpy as np
import onnx

from keywarp.engines.backends.tensorrt.program import TensorSpec
from keywarp.engines.backends.warping import WARP
from keywarp.engines.cuda import kernels
from keywarp.engines.errors import BackendError

VARIABLE: Final = "KEYWARP_TENSORRT8"  # environment variable: the library's path
SEARCH_PATHS: Final = (Path("/usr/local/lib/libkeywarp_tensorrt8.so"), Path("/usr/lib/libkeywarp_tensorrt8.so"))
WORKSPACE: Final = 2**30  # bytes that TensorRT may use while it tries kernels, and its plans while they run
MAX_SIDES: Final = 8  # dimensions of a tensor
_FP16, _INT8 = 1, 2  # bits of the types that layers may run in
_LEVELS: Final = (logging.ERROR, logging.ERROR, logging.INFO, logging.DEBUG)  # by TensorRT's severities
_DTYPES: Final = (np.float32, np.float16, np.int8, np.int32, np.bool_, np.uint8)  # by the numbers of nvinfer1::DataType
_KERNEL_DTYPES: Final[tuple[kernels.DType, ...]] = ("f32", "f16", "bf16")  # by the numbers of keywarp::DType
_KERNEL_LAYOUTS: Final[tuple[kernels.Layout, ...]] = ("nchw", "hwc8")  # by the numbers of keywarp::Layout
log = logging.getLogger(__name__)

# Queues a warp, as `WarpLauncher.launch` does.
Launch = Callable[[kernels.Layout, kernels.DType, tuple[int, ...], tuple[int, ...], tuple[int, ...], int], None]

_Pointer, _Text, _Int, _Size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
_LOG = ctypes.CFUNCTYPE(None, _Int, _Text)
_LAUNCH = ctypes.CFUNCTYPE(
    _Int, _Int, _Int, ctypes.POINTER(_Int), _Pointer, _Pointer, _Pointer, _Pointer, _Pointer
)  # type, layout, shape of features and flow, addresses of features, flow, scale and warped, stream
# The library's functions: what they return, and what they take.
SIGNATURES: Final[Mapping[str, tuple[Any, tuple[Any, ...]]]] = {
    "keywarp_plugin_generation": (_Int, ()),
    "keywarp_plugin_register": (ctypes.c_bool, ()),
    "keywarp_trt_version": (_Int, ()),
    "keywarp_trt_listen": (None, (_LOG, _LAUNCH)),
    "keywarp_trt_build": (_Pointer, (_Text, _Size, _Int, _Int, _Size)),
    "keywarp_trt_plan_data": (_Pointer, (_Pointer,)),
    "keywarp_trt_plan_size": (_Size, (_Pointer,)),
    "keywarp_trt_plan_free": (None, (_Pointer,)),
    "keywarp_trt_load": (_Pointer, (_Text, _Size)),
    "keywarp_trt_free": (None, (_Pointer,)),
    "keywarp_trt_memory": (_Size, (_Pointer,)),
    "keywarp_trt_count": (_Int, (_Pointer,)),
    "keywarp_trt_name": (_Text, (_Pointer, _Int)),
    "keywarp_trt_describe": (
        _Int,
        (_Pointer, _Text, ctypes.POINTER(_Int), ctypes.POINTER(_Int), ctypes.POINTER(_Int)),
    ),
    "keywarp_trt_bind": (_Int, (_Pointer, _Text, _Pointer)),
    "keywarp_trt_enqueue": (_Int, (_Pointer, _Pointer)),
}


def find_library() -> Path | None:
    """Return the path of the compiled library, or None if there is none."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else next((path for path in SEARCH_PATHS if path.is_file()), None)


class TensorRT8:
    """The library, loaded. There is one for a process, since TensorRT keeps its plugins and its first logger."""

    def __init__(self, path: Path) -> None:
        """Load the library and register its plugin.

        Args:
            path: The library's path.

        Raises:
            BackendError: If it doesn't load, or TensorRT refuses its plugin.
        """
        try:
            self.calls: Any = ctypes.CDLL(str(path))
            for name, (returned, taken) in SIGNATURES.items():
                function = getattr(self.calls, name)
                function.restype, function.argtypes = returned, taken
        except (OSError, AttributeError) as error:
            raise BackendError(f"{path} doesn't load: {error}") from error
        number = self.calls.keywarp_trt_version()
        self.__version__ = f"{number // 1000}.{number // 100 % 10}.{number % 100}"
        self._messages: deque[str] = deque(maxlen=3)  # the last warnings and errors
        self._thread = local()  # its `launch` launches the warps of the thread's GPU
        self._callbacks = _LOG(self._log), _LAUNCH(self._launch)  # must live as long as the library
        self.calls.keywarp_trt_listen(*self._callbacks)
        if not self.calls.keywarp_plugin_register():
            raise BackendError(f"TensorRT {self.__version__} doesn't register the plugin of {path}")

    def build(self, graph: bytes, name: str, launch: Launch | None, *, half: bool) -> tuple[bytes, int]:
        """Build a plan.

        Args:
            graph: The graph as ONNX, in which a plugin replaces the warp.
            name: The graph's name, for errors.
            launch: Launches the warp while TensorRT times it.
            half: Whether layers may run in fp16.

        Returns:
            The plan, and the number of warps in it.

        Raises:
            BackendError: If TensorRT refuses the graph. The message has TensorRT's reason.
        """
        self._messages.clear()
        self._thread.launch = launch
        operators = [node.op_type for node in onnx.load_from_string(graph).graph.node] if graph else []
        types = (_FP16 if half else 0) | (_INT8 if "QuantizeLinear" in operators else 0)
        plan = self.calls.keywarp_trt_build(graph, len(graph), types, _has_cudnn(), WORKSPACE)
        if not plan:
            raise BackendError(f"TensorRT {self.__version__} can't compile {name}: {self._reason()}")
        content = ctypes.string_at(self.calls.keywarp_trt_plan_data(plan), self.calls.keywarp_trt_plan_size(plan))
        self.calls.keywarp_trt_plan_free(plan)
        return content, operators.count(WARP)

    def load(self, plan: bytes, name: str, launch: Launch) -> "Executable8":
        """Load a plan onto the calling thread's current GPU.

        Args:
            plan: The plan.
            name: What the plan is for, for errors.
            launch: Launches the warp on that GPU.

        Raises:
            BackendError: If TensorRT refuses the plan. The message has TensorRT's reason.
        """
        self._messages.clear()
        loaded = self.calls.keywarp_trt_load(plan, len(plan))
        if not loaded:
            raise BackendError(f"TensorRT {self.__version__} can't load a plan for {name}: {self._reason()}")
        log.debug("the activations of %s take %.1f MB", name, self.calls.keywarp_trt_memory(loaded) / 1e6)
        return Executable8(self, loaded, launch)

    def enqueue(self, loaded: int, stream: int, launch: Launch) -> None:
        """Queue one run of a loaded plan.

        Raises:
            BackendError: If TensorRT fails.
        """
        self._messages.clear()
        self._thread.launch = launch
        if self.calls.keywarp_trt_enqueue(loaded, stream):
            raise BackendError(f"TensorRT {self.__version__} failed to run a plan: {self._reason()}")

    def _reason(self) -> str:
        return "; ".join(self._messages) or "it gives no reason"

    def _log(self, severity: int, message: bytes) -> None:
        level = _LEVELS[severity] if severity < len(_LEVELS) else 0  # 0 for verbose messages, which are left out
        text = message.decode(errors="replace")
        if level:
            log.log(min(level, logging.INFO), "%s", text)
        if level >= logging.INFO:
            self._messages.append(text)

    def _launch(
        self,
        dtype: int,
        layout: int,
        sides: Any,
        features: int | None,
        flow: int | None,
        scale: int | None,
        warped: int | None,
        stream: int | None,
    ) -> int:
        """Launch the warp for the plugin, and return whether that failed. Exceptions can't pass through C."""
        launch: Launch | None = getattr(self._thread, "launch", None)
        if launch is None:
            self._messages.append("a warp runs on a thread that didn't ask for it")
            return 1
        batch, channels, height, width, flow_height, flow_width = sides[:6]
        addresses = tuple(address or 0 for address in (features, flow, scale, warped))
        shapes = (batch, channels, height, width), (batch, 2, flow_height, flow_width)
        try:
            launch(_KERNEL_LAYOUTS[layout], _KERNEL_DTYPES[dtype], *shapes, addresses, stream or 0)
        except Exception as error:  # noqa: BLE001 - see above
            self._messages.append(str(error))
            return 1
        return 0


class Executable8:
    """A plan that TensorRT 8.5 has loaded; see `Executable`."""

    def __init__(self, library: TensorRT8, loaded: int, launch: Launch) -> None:
        """Read the plan's inputs and outputs."""
        self._library, self._loaded, self._launch = library, loaded, launch
        self.inputs: Mapping[str, TensorSpec]
        self.outputs: Mapping[str, TensorSpec]
        inputs: dict[str, TensorSpec] = {}
        outputs: dict[str, TensorSpec] = {}
        calls = library.calls
        for number in range(calls.keywarp_trt_count(loaded)):
            name = calls.keywarp_trt_name(loaded, number)
            kind, is_input, sides = _Int(), _Int(), (_Int * MAX_SIDES)()
            count = calls.keywarp_trt_describe(loaded, name, kind, is_input, sides)
            spec = TensorSpec(np.dtype(_DTYPES[kind.value]), tuple(sides[:count]))
            (inputs if is_input.value else outputs)[name.decode()] = spec
        self.inputs, self.outputs = inputs, outputs

    def enqueue(self, addresses: Mapping[str, int], stream: int) -> None:
        """See `Executable.enqueue`."""
        for name, address in addresses.items():
            if self._library.calls.keywarp_trt_bind(self._loaded, name.encode(), address):
                raise BackendError(f"TensorRT {self._library.__version__} doesn't take the tensor {name}")
        self._library.enqueue(self._loaded, stream, self._launch)

    def __del__(self) -> None:
        if not sys.is_finalizing():  # at the process's end the driver cleans up by itself
            self._library.calls.keywarp_trt_free(self._loaded)


def _has_cudnn() -> bool:
    """Return whether cuDNN 8 is installed, whose kernels TensorRT needs on Kepler, and tries elsewhere."""
    try:
        return hasattr(ctypes.CDLL("libcudnn.so.8"), "cudnnConvolutionForward")
    except OSError:
        return False
