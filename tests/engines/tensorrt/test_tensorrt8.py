"""TensorRT 8.5 through our own library: its calls against a fake library, and the real one where its files are."""

import gc
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from keywarp.engines import BackendError, backends, choose_backend
from keywarp.engines.backends.tensorrt import library as library_module
from keywarp.engines.backends.tensorrt.builder import PlanBuilder, Target
from keywarp.engines.backends.tensorrt.library import open_library
from keywarp.engines.backends.tensorrt.plugin import WarpLauncher
from keywarp.engines.backends.tensorrt.program import TensorSpec
from keywarp.engines.backends.tensorrt.tensorrt8 import SIGNATURES, VARIABLE, TensorRT8
from keywarp.engines.cuda import kernels
from keywarp.engines.fusion import fuse_propagate
from tests.engines.tensorrt import headers
from tests.engines.tensorrt.fake_driver import FakeDriver
from tests.engines.test_devices import K40
from tests.tiny_bundle import tiny_bundle

HERE = Path(__file__).parent
SOURCE = kernels.FOLDER / "tensorrt8.cpp"
REAL = Path(os.environ.get(VARIABLE, headers.FETCHED.parent / "tensorrt8" / "libkeywarp_tensorrt8.so"))


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the fake library."""
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    library = tmp_path_factory.mktemp("tensorrt8") / "libkeywarp_tensorrt8.so"
    command = ["g++", "-std=c++17", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", str(HERE / "fake_tensorrt8.cpp")]
    subprocess.run([*command, "-o", str(library)], check=True)
    return library


class Launcher(WarpLauncher):
    """A launcher whose kernels needn't be compiled."""

    def __init__(self, driver: FakeDriver) -> None:
        super().__init__(driver, (3, 5))
        self._kernels = {name: driver.load_kernel(b"", name) for name in kernels.KERNELS.values()}


def test_a_plan_is_built_loaded_and_run(fake: Path) -> None:
    library, driver = TensorRT8(fake), FakeDriver()
    assert library.__version__ == "8.5.3"
    plan, warps = library.build(graph(), "key", None, half=True)
    assert (plan, warps) == (b"half " + graph(), 1)
    quantised = graph("QuantizeLinear")
    assert library.build(quantised, "key", None, half=True) == (b"int8 " + quantised, 0)
    executable = library.load(plan, "a K40", Launcher(driver).launch)
    half = np.dtype(np.float16)
    assert executable.inputs == {
        "features": TensorSpec(half, (1, 24, 38, 63)),
        "flow": TensorSpec(half, (1, 2, 38, 63)),
        "frame": TensorSpec(np.dtype(np.uint8), (1, 8, 9, 3)),
    }
    assert executable.outputs == {"warped": TensorSpec(half, (1, 24, 38, 63))}
    stream = driver.open_stream()
    executable.enqueue({"features": 11, "flow": 2**40, "frame": 33, "warped": 44}, stream)
    assert driver.launches == [("keywarp_warp_f16", (11, 2**40, 0, 44), (1, 24, 38, 63, 38, 63))]
    assert library.calls.fake_alive() == 1
    del executable
    gc.collect()
    assert library.calls.fake_alive() == 0


def test_errors_have_tensorrts_reason(fake: Path) -> None:
    library, driver = TensorRT8(fake), FakeDriver()
    with pytest.raises(BackendError, match=r"TensorRT 8\.5\.3 can't compile key: the graph is empty$"):
        library.build(b"", "key", None, half=False)
    with pytest.raises(BackendError, match="can't load a plan for a K40: CUDA initialization failure"):
        library.load(b"", "a K40", Launcher(driver).launch)

    def refuse(*_: object) -> None:
        raise BackendError("the kernel is too large")

    executable = library.load(b"a plan", "a K40", refuse)
    with pytest.raises(BackendError, match="failed to run a plan: the kernel is too large"):
        executable.enqueue({"features": 11, "flow": 22, "warped": 44}, driver.open_stream())
    with pytest.raises(BackendError, match=r"doesn't take the tensor \?"):
        executable.enqueue({"?": 11}, 0)


def test_a_library_that_is_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="doesn't load"):
        TensorRT8(tmp_path / "missing.so")


def test_it_is_used_if_no_other_tensorrt_is_installed(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module, "PACKAGES", ())
    monkeypatch.setenv(VARIABLE, str(fake))
    monkeypatch.setattr(backends, "_installed", lambda _: {"tensorrt", "onnxruntime"})
    choice = choose_backend(gpus=[K40])
    assert (choice.backend, choice.gpu) == ("tensorrt", K40)
    library = open_library.__wrapped__()
    assert (library.name, library.version, library.generation, library.portable) == ("tensorrt8", "8.5.3", 8, False)
    builder = PlanBuilder(library, Target((3, 5), "Tesla K40m"), "fp32")
    plan, cached = builder.plan(fuse_propagate(tiny_bundle(tmp_path / "tiny"), 64, 96).model)
    assert (plan.header.warps, plan.header.key.warp, cached) == (1, "c++", False)
    assert plan.content.startswith(b"whole ")


def test_python_and_c_agree_about_the_functions() -> None:
    """ctypes checks nothing: a pointer that is passed as an int loses its upper half."""
    kinds = {"void*": "p", "const void*": "p", "const char*": "t", "int": "i", "int*": "n", "size_t": "s", "void": "-"}
    kinds |= {"Log": "f", "Launch": "f", "bool": "b", "int32_t": "i"}
    text = SOURCE.read_text() + (kernels.FOLDER / "warp_tensors.h").read_text().replace(" \\\n", "\n")
    text = text.replace('__attribute__((visibility("default")))', "KEYWARP_API")
    found = {}
    for returned, name, arguments in re.findall(r"KEYWARP_API ([\w ]+\*?) (\w+)\(([^)]*)\) \{", text):
        taken = [re.sub(r"\s*\w+$", "", argument.strip()) for argument in arguments.split(",") if argument.strip()]
        found[name] = kinds[returned], tuple(kinds[kind] for kind in taken)
    names = {"c_void_p": "p", "c_char_p": "t", "c_int": "i", "c_ulong": "s", "NoneType": "-", "c_bool": "b"}
    names |= {"CFunctionType": "f", "LP_c_int": "n"}
    # bytes may be passed as a pointer to data
    expected = {
        name: (names[getattr(returned, "__name__", "NoneType")], tuple(names[kind.__name__] for kind in taken))
        for name, (returned, taken) in SIGNATURES.items()
    }
    assert {name: (r, tuple("p" if k == "t" else k for k in t)) for name, (r, t) in found.items()} == {
        name: (r, tuple("p" if k == "t" else k for k in t)) for name, (r, t) in expected.items()
    }


def graph(operator: str = "KeywarpWarp") -> bytes:
    """Return a graph of one node."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("features", "flow", "warped")]
    node = helper.make_node(operator, ["features", "flow"], ["warped"])
    content: bytes = helper.make_model(helper.make_graph([node], "key", ends[:2], ends[2:])).SerializeToString()
    return content


@pytest.mark.gpu_check
def test_the_library_compiles_with_the_headers_of_tensorrt_8(tmp_path: Path) -> None:
    sources = (SOURCE, kernels.FOLDER / "warp_plugin_v2.cpp")
    if not (headers.headers(8) / "NvOnnxParser.h").is_file():
        pytest.skip("no NvOnnxParser.h among the headers")
    options = (f"-I{kernels.FOLDER}", "-fvisibility=hidden", f"-I{kernels.FOLDER / 'without_toolkit'}")
    headers.compile_library(tmp_path / "library.so", 8, *sources, options=options)


OPEN = """
import sys
from pathlib import Path
from keywarp.engines import BackendError
from keywarp.engines.backends.tensorrt.tensorrt8 import TensorRT8
from tests.engines.tensorrt.test_tensorrt8 import graph
GRAPH = graph()
library = TensorRT8(Path(sys.argv[1]))
print(library.__version__, library.calls.keywarp_plugin_generation())
build, load = lambda: library.build(GRAPH, "key", None, half=False), lambda: library.load(b"a plan", "a K40", None)
for call in (build, load):
    try:
        call()
    except BackendError as error:
        print(error)
"""


@pytest.mark.gpu_check
def test_the_real_library_gets_as_far_as_the_first_call_that_needs_a_gpu() -> None:
    """TensorRT's registry takes the plugin; its builder and its runtime find no driver when they start."""
    if not REAL.is_file():
        pytest.skip(f"no {REAL.name}: docker/tensorrt8.py makes it, and {VARIABLE} names it")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, "-c", OPEN, str(REAL)], capture_output=True, text=True, check=True)
    version, build, load = done.stdout.splitlines()
    assert version == "8.5.3 8"
    assert "can't compile key: " in build
    assert "CUDA initialization failure with error: 35" in build
    assert "can't load a plan for a K40: CUDA initialization failure with error: 35" in load
