"""TensorRT's C++ headers, which are NVIDIA's and aren't shipped here, and what compiles with them."""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

VARIABLES = {8: "TENSORRT_INCLUDE_V2", 10: "TENSORRT_INCLUDE_V3", 11: "TENSORRT_INCLUDE_RTX"}  # by generation
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations")
FETCHED = Path(__file__).parents[3] / ".cache" / "keywarp" / "tensorrt-headers"


def headers(generation: int) -> Path:
    """Return the folder of the headers of a generation of TensorRT, or skip the test without them."""
    named = os.environ.get(VARIABLES[generation])
    folder = Path(named) if named else FETCHED / str(generation)
    if not (folder / "NvInfer.h").is_file():
        pytest.skip(
            f"no headers of TensorRT {generation}: {VARIABLES[generation]} names their folder (docs/gpu-kernels.md)"
        )
    return folder


def cuda_headers() -> Path:
    """Return the folder of CUDA's headers, from a toolkit or from the package that torch needs, or skip the test."""
    named = os.environ.get("CUDA_INCLUDE", "/usr/local/cuda/include")
    spec = find_spec("nvidia")
    folders = [
        Path(named),
        *(Path(root) / "cu13" / "include" for root in ((spec and spec.submodule_search_locations) or ())),
    ]
    for folder in folders:
        if (folder / "cuda_runtime_api.h").is_file():
            return folder
    pytest.skip("no CUDA headers: CUDA_INCLUDE names their folder")


def compile_library(target: Path, generation: int, *sources: Path, options: tuple[str, ...] = ()) -> Path:
    """Compile C++ with TensorRT's headers into a library."""
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    includes = [f"-isystem{folder}" for folder in (headers(generation), cuda_headers())]
    command = [
        "g++",
        "-std=c++17",
        "-shared",
        "-fPIC",
        *WARNINGS,
        *includes,
        *map(str, sources),
        *options,
        "-o",
        str(target),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target
