"""The plugin, run by TensorRT's own C++ classes as far as the launch of its kernel. This needs no GPU."""

import ctypes
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from keywarp.engines.backends.tensorrt.library import open_library
from keywarp.engines.backends.tensorrt.plugin import WarpLauncher, launching_with, plugin_creator, register_warp
from keywarp.engines.cuda import kernels
from tests.engines.tensorrt.fake_driver import FakeDriver
from tests.engines.tensorrt.headers import compile_library

pytestmark = pytest.mark.gpu_check

HERE = Path(__file__).parent


def link() -> tuple[str, ...]:
    """Return the options that link with TensorRT for RTX."""
    spec = find_spec("tensorrt_rtx_libs")
    assert spec
    [folder] = spec.submodule_search_locations or []
    return f"-L{folder}", "-l:libtensorrt_rtx.so.1", f"-Wl,-rpath,{folder}"


def plugin(folder: Path, generation: int) -> Path:
    """Compile the C++ plugin, with a launcher that launches nothing."""
    sources = kernels.FOLDER / "warp_plugin_v3.cpp", HERE / "fake_launcher.cpp"
    options = (f"-I{kernels.FOLDER}", *link())
    return compile_library(folder / f"plugin{generation}.so", generation, *sources, options=options)


def test_the_python_plugin_implements_all_that_tensorrt_calls() -> None:
    """TensorRT's C++ side calls these methods of its subclasses only, and fails if they are missing."""
    trt = open_library().module
    made = plugin_creator(trt).create_plugin("", trt.PluginFieldCollection([]), None)
    called = {
        *("get_capability_interface", "clone", "get_output_data_types", "get_output_shapes", "configure_plugin"),
        *("supports_format_combination", "on_shape_change", "set_tactic", "attach_to_context", "enqueue"),
        "get_fields_to_serialize",
    }
    assert called <= vars(type(made)).keys()
    assert made.set_tactic(0) is None


def test_tensorrt_runs_the_python_plugin_up_to_the_launch(tmp_path: Path) -> None:
    library = open_library()
    assert register_warp(library) == "python"
    runner = ctypes.CDLL(
        str(compile_library(tmp_path / "run.so", library.generation, HERE / "run_plugin.cpp", options=link()))
    )
    driver = FakeDriver()
    stream = driver.open_stream()
    for inputs, expected in ((3, (11, 22, 33, 44)), (2, (11, 22, 0, 33))):
        addresses = (ctypes.c_void_p * 4)(11, 22, 33, 44)
        with launching_with(WarpLauncher(driver, (8, 6))):
            assert runner.run_plugin(inputs, addresses, ctypes.c_void_p(stream)) == 0
        assert driver.launches.pop() == ("keywarp_warp_f16", expected, (1, 24, 38, 63, 38, 63))


RUN = """
import ctypes, sys
from keywarp.engines.backends.tensorrt.library import open_library
from keywarp.engines.backends.tensorrt.plugin import register_warp
print(register_warp(open_library()))
runner = ctypes.CDLL(sys.argv[1])
assert runner.run_plugin(3, (ctypes.c_void_p * 4)(11, 22, 33, 44), None) == 0
print(list((ctypes.c_void_p * 4).in_dll(ctypes.CDLL(sys.argv[2]), "launched")))
"""

BUILD = """
import sys
from pathlib import Path
from keywarp.engines.backends.tensorrt.builder import PlanBuilder, Target
from keywarp.engines.backends.tensorrt.library import open_library
from keywarp.engines.fusion import fuse_propagate
from tests.tiny_bundle import tiny_bundle
builder = PlanBuilder(open_library(), Target((8, 6)), "fp16")
plan, _ = builder.plan(fuse_propagate(tiny_bundle(Path(sys.argv[1])), 64, 96).model)
print(builder.warp, plan.header.warps)
"""

REFUSE = """
from keywarp.engines import BackendError
from keywarp.engines.backends.tensorrt.library import open_library
from keywarp.engines.backends.tensorrt.plugin import register_warp
try:
    register_warp(open_library())
except BackendError as error:
    print(error)
"""


def run(code: str, library: Path, *arguments: Path) -> str:
    """Run a program, in a process of its own since a plugin stays registered in its process."""
    env = {"KEYWARP_TENSORRT_PLUGIN": str(library), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=HERE.parents[2])
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    return done.stdout.strip()


def test_the_plugin_in_c_runs_in_the_tensorrt_that_it_was_built_for(tmp_path: Path) -> None:
    generation = open_library().generation
    library = plugin(tmp_path, generation)
    runner = compile_library(tmp_path / "run.so", generation, HERE / "run_plugin.cpp", options=link())
    assert run(RUN, library, runner, library).splitlines() == ["c++", "[11, 22, 33, 44]"]
    assert run(BUILD, library, tmp_path / "tiny") == "c++ 1"


def test_a_plugin_that_was_built_for_another_tensorrt_is_refused(tmp_path: Path) -> None:
    """Its virtual functions are in other places, so that TensorRT's first call would end the process."""
    assert "because it was built for TensorRT 10, not 11: build it for this version" in run(
        REFUSE, plugin(tmp_path, 10)
    )


def test_a_file_that_is_no_plugin_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plugin.so").write_bytes(b"no library")
    assert "because it doesn't load" in run(REFUSE, tmp_path / "plugin.so")
