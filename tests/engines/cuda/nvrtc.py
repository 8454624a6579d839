"""Compiles the kernels with NVIDIA's NVRTC from PyPI, without GPU or driver, and reads the resources that they use.

.venv/bin/python -m tests.engines.cuda.nvrtc    prints the table in docs/gpu-kernels.md
"""

import ctypes
import importlib.metadata
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from keywarp.engines.cuda import kernels

# The package that compiles for each compute capability, the newest cards last.
TARGETS: dict[tuple[int, int], str] = {
    (3, 5): "nvidia-cuda-nvrtc-cu11",  # K40
    **dict.fromkeys(
        [(5, 2), (6, 0), (6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0), (12, 1)],
        "nvidia-cuda-nvrtc-cu12",
    ),
}

_FIGURES = re.compile(
    r"Function properties for (?P<kernel>\w+)\s+ptxas +\. +(?P<stack>\d+) bytes stack frame, "
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\s+"
    r"ptxas info +: Used (?P<registers>\d+) registers(?P<rest>.*)"
)


@dataclass(frozen=True)
class Resources:
    """The resources of a thread of a kernel. Stack, spilled and shared are in bytes."""

    registers: int
    stack: int
    spilled: int
    shared: int  # per block


class CompilationError(Exception):
    """NVRTC refused the source. The message is NVRTC's log."""


def library(package: str) -> Path:
    """Return the path of a package's `libnvrtc.so`.

    Raises:
        importlib.metadata.PackageNotFoundError: If the package isn't installed.
    """
    files = importlib.metadata.files(package) or []
    return next(Path(str(f.locate())) for f in files if re.fullmatch(r"libnvrtc\.so\.[\d.]+", f.name))


def compile_kernels(major: int, minor: int) -> tuple[bytes, dict[str, Resources]]:
    """Compile warp.cu for a compute capability; see `compile_source`."""
    return compile_source(kernels.source(), (major, minor))


def compile_source(
    source: str, capability: tuple[int, int], options: tuple[str, ...] = ()
) -> tuple[bytes, dict[str, Resources]]:
    """Compile a source for a compute capability.

    Returns:
        The program as an ELF file, and the resources of each kernel.

    Raises:
        CompilationError: If it doesn't compile.
    """
    nvrtc = ctypes.CDLL(str(library(TARGETS[capability])))
    given = [o.encode() for o in (*kernels.nvrtc_options(*capability), *options, "--ptxas-options=-v")]
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"keywarp.cu", 0, None, None)
    try:
        failed = nvrtc.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
        log = _fetch(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).rstrip(b"\0").decode()
        if failed:
            raise CompilationError(log)
        cubin = _fetch(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return cubin, resources(log)


def resources(log: str) -> dict[str, Resources]:
    """Return the resources of each kernel from the output of ptxas -v."""
    found = {}
    for match in _FIGURES.finditer(log):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        spilled = int(match["stores"]) + int(match["loads"])
        found[match["kernel"]] = Resources(
            int(match["registers"]), int(match["stack"]), spilled, int(shared[1]) if shared else 0
        )
    return found


def _fetch(size_of: Callable[..., int], copy: Callable[..., int], program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    copy(program, buffer)
    return buffer.raw


def main() -> None:
    """Print registers, spills and shared memory of every kernel for every compute capability."""
    print("| compute capability |", " | ".join(f"`{name}`" for name in kernels.KERNELS.values()), "|")
    print("| --- |" + " --- |" * len(kernels.KERNELS))
    for major, minor in TARGETS:
        found = compile_kernels(major, minor)[1]
        cells = (f"{r.registers} / {r.spilled} / {r.shared}" for r in map(found.__getitem__, kernels.KERNELS.values()))
        print(f"| {major}.{minor} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
