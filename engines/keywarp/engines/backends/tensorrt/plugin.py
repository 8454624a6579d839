"""`KeywarpWarp`, the warp as a TensorRT plugin: the C++ library if it is installed, otherwise a plugin in Python.

Both launch the same kernels (`keywarp.engines.cuda`). The Python plugin compiles them with NVRTC when it first runs,
and takes a few microseconds of Python time per frame.
"""

import ctypes
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from keywarp.engines.backends.tensorrt.driver import Driver, compile_kernels
from keywarp.engines.backends.tensorrt.library import Library
from keywarp.engines.backends.warping import WARP
from keywarp.engines.cuda import kernels
from keywarp.engines.errors import BackendError

VERSION = "1"
VARIABLE = "KEYWARP_TENSORRT_PLUGIN"  # environment variable: the path of the C++ library, `python`, or `none`
SEARCH_PATHS = (Path("/usr/local/lib/libkeywarp_plugin.so"), Path("/usr/lib/libkeywarp_plugin.so"))
WarpKind = Literal["c++", "python", "gridsample"]  # what runs the warp
log = logging.getLogger(__name__)
_creators: list[Any] = []  # referenced here, since TensorRT doesn't keep them alive


def register_warp(library: Library) -> WarpKind:
    """Register the plugin with TensorRT, until the process ends.

    Returns:
        What runs the warp: `c++` for the library that `KEYWARP_TENSORRT_PLUGIN` names or that is in one of
        `SEARCH_PATHS`, `python` for the plugin in Python, or `gridsample` if CUDA's compiler is missing.

    Raises:
        BackendError: If the library that `KEYWARP_TENSORRT_PLUGIN` names doesn't load.
    """
    if library.name == "tensorrt8":  # whose library contains the plugin
        return "c++"
    wanted = os.environ.get(VARIABLE, "")
    return "gridsample" if wanted == "none" else _register(library, wanted)


@cache
def _register(library: Library, wanted: str) -> WarpKind:
    registry = library.module.get_plugin_registry()
    found = [path for path in SEARCH_PATHS if path.is_file()]
    if wanted != "python" and (path := Path(wanted) if wanted else next(iter(found), None)):
        failure = _load(library, path)
        if not failure:
            log.info("the warp is the plugin in %s", path)
            return "c++"
        failure = f"{library.name} {library.version} can't use the plugin {path}, because {failure}"
        if wanted:
            raise BackendError(f"{failure}: build it for this version, or set {VARIABLE}=python")
        log.warning("%s: the Python plugin is used instead", failure)
    try:
        import cuda.bindings.nvrtc  # noqa: F401 - only to find out whether it is installed
    except ImportError as error:
        log.warning("the warp is TensorRT's GridSample, since the plugin can't be compiled: %s", error)
        return "gridsample"
    creator = plugin_creator(library.module)
    if not registry.register_creator(creator, ""):
        raise BackendError(f"another {WARP} plugin is already registered in this process")
    _creators.append(creator)
    return "python"


def _load(library: Library, path: Path) -> str:
    """Load the C++ plugin and register it. Return why that isn't possible, or "".

    TensorRT's own `load_library` would call into the plugin before its version is known, and end the process.
    """
    try:
        plugin = ctypes.CDLL(str(path))
        generation = int(plugin.keywarp_plugin_generation())
    except (OSError, AttributeError) as error:
        return f"it doesn't load ({error})"
    if generation != library.generation:
        return f"it was built for TensorRT {generation}, not {library.generation}"
    plugin.keywarp_plugin_register.restype = ctypes.c_bool
    if not plugin.keywarp_plugin_register():
        return "TensorRT doesn't register it"
    if library.module.get_plugin_registry().get_creator(WARP, VERSION, "") is None:
        return "it registers with another TensorRT than this one"
    return ""


class WarpLauncher:
    """Launches the warp kernels on one device. The plugins of all its plans share it."""

    def __init__(self, driver: Driver, capability: tuple[int, int]) -> None:
        """Prepare a launcher. Kernels are compiled when they are first launched.

        Args:
            driver: The device's driver.
            capability: The device's compute capability.
        """
        self._driver = driver
        self._capability = capability
        self._kernels: dict[str, int] = {}

    def launch(
        self,
        layout: kernels.Layout,
        dtype: kernels.DType,
        shape: tuple[int, ...],
        flow: tuple[int, ...],
        addresses: tuple[int, ...],
        stream: int,
    ) -> None:
        """Queue one warp.

        Args:
            layout: The memory layout of features, scale and warped features.
            dtype: The data type of all tensors.
            shape: The features' shape, (N, C, H, W).
            flow: The flow's shape, (N, 2, h, w).
            addresses: The device addresses of features, flow, scale (or 0) and warped features.
            stream: The stream to queue it in.

        Raises:
            BackendError: If NVRTC can't compile the kernel, or the device refuses the launch.
        """
        plan = kernels.launch(layout, dtype, *shape)
        kernel = self._kernels.get(plan.kernel)
        if kernel is None:
            image = compile_kernels(kernels.source(), kernels.nvrtc_options(*self._capability))
            kernel = self._kernels[plan.kernel] = self._driver.load_kernel(image, plan.kernel)
        self._driver.launch(kernel, plan.grid, plan.block, addresses, (*shape, *flow[2:]), stream)


_binding = Lock()
_launcher: WarpLauncher | None = None


@contextmanager
def launching_with(launcher: WarpLauncher | None) -> Iterator[None]:
    """Let the plugins that TensorRT creates in the block use a launcher, or None if they are only built into plans.

    Only one thread of the process runs such a block at a time, since TensorRT asks for plugins without saying for which
    GPU, and possibly on its own threads.
    """
    global _launcher
    with _binding:
        _launcher = launcher
        try:
            yield
        finally:
            _launcher = None


@cache
def plugin_creator(trt: Any) -> Any:
    """Return the plugin's creator, whose classes derive from those of the installed TensorRT."""
    dtypes: dict[Any, kernels.DType] = {trt.float32: "f32", trt.float16: "f16", trt.bfloat16: "bf16"}
    layouts: dict[Any, kernels.Layout] = {trt.TensorFormat.LINEAR: "nchw", trt.TensorFormat.HWC8: "hwc8"}

    class _Warp(trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):  # type: ignore[misc]
        """The plugin. Its inputs are features, flow and optionally scale; its output is the warped features."""

        def __init__(self) -> None:
            trt.IPluginV3.__init__(self)
            trt.IPluginV3OneCore.__init__(self)
            trt.IPluginV3OneBuild.__init__(self)
            trt.IPluginV3OneRuntime.__init__(self)
            self.plugin_name, self.plugin_version, self.plugin_namespace = WARP, VERSION, ""
            self.num_outputs = 1
            self._launcher = _launcher

        def get_capability_interface(self, kind: Any) -> Any:  # noqa: ARG002 - this class has all interfaces
            return self

        def get_output_data_types(self, inputs: list[Any]) -> list[Any]:
            return [inputs[0]]

        def get_output_shapes(self, inputs: list[Any], shapes: list[Any], builder: Any) -> list[Any]:  # noqa: ARG002
            return [trt.DimsExprs(inputs[0])]

        def get_fields_to_serialize(self) -> Any:
            return trt.PluginFieldCollection([])

        def supports_format_combination(self, position: int, ends: list[Any], inputs: int) -> bool:  # noqa: ARG002
            first, this = ends[0].desc, ends[position].desc
            layout = trt.TensorFormat.LINEAR if position == 1 else first.format  # the flow is always linear
            if this.type != first.type or this.format != layout:
                return False
            return (layouts.get(first.format), dtypes.get(first.type)) in kernels.KERNELS

        def configure_plugin(self, inputs: list[Any], outputs: list[Any]) -> None:  # noqa: ARG002
            shapes = [tuple(end.desc.dims) for end in inputs]
            if len(shapes) not in (2, 3) or any(shape != shapes[0] for shape in shapes[2:]):
                raise ValueError(
                    f"{WARP} takes features, flow, and optionally a scale of the features' shape, got {shapes}"
                )

        def on_shape_change(self, inputs: list[Any], outputs: list[Any]) -> None:
            pass

        def set_tactic(self, tactic: int) -> None:
            """Take the tactic 0, which TensorRT sets although there are none. Without this method it ends the run."""

        def attach_to_context(self, resources: Any) -> "_Warp":  # noqa: ARG002
            return self.clone()

        def clone(self) -> "_Warp":
            copy = _Warp()
            copy._launcher = self._launcher
            return copy

        def enqueue(
            self,
            input_desc: list[Any],
            output_desc: list[Any],  # noqa: ARG002
            inputs: list[int],
            outputs: list[int],
            workspace: int,  # noqa: ARG002
            stream: int,
        ) -> None:
            features, flow = input_desc[0], input_desc[1]
            scale = inputs[2] if len(inputs) > 2 else 0
            if self._launcher is None:
                raise RuntimeError(f"this {WARP} was created for building a plan and can't run")
            self._launcher.launch(
                layouts[features.format],
                dtypes[features.type],
                tuple(features.dims),
                tuple(flow.dims),
                (inputs[0], inputs[1], scale, outputs[0]),
                stream,
            )

    class _Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_version, self.plugin_namespace = WARP, VERSION, ""
            self.field_names = trt.PluginFieldCollection([])

        def create_plugin(self, name: str, fields: Any, phase: Any) -> _Warp:  # noqa: ARG002
            return _Warp()

    return _Creator()
