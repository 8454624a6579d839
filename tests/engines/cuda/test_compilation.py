"""The CUDA source compiles for every GPU generation, and no kernel spills. `make check-gpu` runs this without a GPU."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from keywarp.engines.cuda import kernels
from tests.engines.cuda import nvrtc
from tests.engines.cuda.nvrtc import TARGETS, CompilationError
from tests.engines.tensorrt.headers import WARNINGS, cuda_headers, headers

pytestmark = pytest.mark.gpu_check

REGISTERS = 64  # limit per thread, so that at least half of an SM's threads can wait for memory at once
NVCC_TARGETS = (75, 80, 86, 89, 90, 100, 103, 110, 120, 121)


@pytest.mark.parametrize("capability", TARGETS, ids=lambda c: f"sm_{c[0]}{c[1]}")
def test_compiles_with_nvrtc_without_spilling(capability: tuple[int, int]) -> None:
    program, found = nvrtc.compile_kernels(*capability)
    assert program.startswith(b"\x7fELF")
    assert set(found) == set(kernels.KERNELS.values())
    for resources in found.values():
        assert (resources.stack, resources.spilled, resources.shared) == (0, 0, 0)
        assert resources.registers <= REGISTERS


def test_an_error_in_the_source_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "source", lambda: "__global__ void f() { nonsense; }")
    with pytest.raises(CompilationError, match="nonsense"):
        nvrtc.compile_kernels(7, 5)


def test_compiles_with_nvcc_for_turing_and_newer(tmp_path: Path) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc")
    codes = [f"-gencode=arch=compute_{target},code=sm_{target}" for target in NVCC_TARGETS]
    command = ["nvcc", "-std=c++17", *codes, "-Xptxas=-v", "-Werror=all-warnings", "-Xcompiler=-Wall,-Wextra,-fPIC"]
    launcher = kernels.FOLDER / "launcher.cu"
    compiled = subprocess.run(
        [*command, "-c", str(launcher), "-o", "launcher.o"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    spills = re.findall(r"(\d+) bytes spill", compiled.stderr)
    assert len(spills) == 2 * len(kernels.KERNELS) * len(NVCC_TARGETS)
    assert set(spills) == {"0"}


@pytest.mark.parametrize(("plugin", "generation"), [("v2", 8), ("v3", 10), ("v3", 11)])
def test_the_plugin_compiles_if_its_headers_are_installed(plugin: str, generation: int) -> None:
    includes = [f"-isystem{folder}" for folder in (headers(generation), cuda_headers())]
    command = ["g++", "-std=c++17", "-fsyntax-only", *WARNINGS, *includes]
    subprocess.run([*command, str(kernels.FOLDER / f"warp_plugin_{plugin}.cpp")], check=True)
