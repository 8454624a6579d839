"""Compiles the sources other than the warp's for the CPU, and runs their kernels on a fake driver's memory."""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from keywarp.engines.cuda import kernels
from tests.engines.cuda.mutants import Mutant
from tests.engines.tensorrt.fake_driver import GARBAGE, FakeDriver

if TYPE_CHECKING:
    from numpy.typing import NDArray

HERE = Path(__file__).parent
FLAGS = (
    *("-std=c++20", "-O1", "-g1", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"),
    *("-Wno-unknown-pragmas", "-fsanitize=undefined,float-cast-overflow", "-fno-sanitize-recover=all"),
)
GUARD = 64  # bytes behind each block


class Library:
    """The kernels of one source, compiled for the CPU."""

    def __init__(self, folder: Path, name: str, mutant: Mutant | None = None) -> None:
        """Compile them.

        Args:
            folder: Where the library is written to.
            name: The source's name without its ending.
            mutant: A mistake to plant, or None.
        """
        compiler = shutil.which("g++")
        if compiler is None:
            pytest.skip("no g++ to run the CUDA source on the CPU with (make packages)")
        files = [file for file in (kernels.FOLDER / f"{name}.cu", kernels.FOLDER / f"{name}.cuh") if file.is_file()]
        texts = {file.name: file.read_text("utf-8") for file in files}
        if mutant:  # mistakes are in the header, if there is one
            texts[files[-1].name] = mutant.plant(texts[files[-1].name])
        for file, text in texts.items():
            (folder / file).write_text(text, "utf-8")
        self.kernels = re.findall(r"^extern \"C\" __global__ void (\w+)\(", texts[f"{name}.cu"], re.MULTILINE)
        library = folder / f"{name}.so"
        macros = f'-DSOURCE="{name}.cu"', "-DKERNELS=" + " ".join(f"KERNEL({kernel})" for kernel in self.kernels)
        places = f"-I{folder}", f"-I{HERE}", str(HERE / "kernel_shim.cpp"), "-o", str(library)
        subprocess.run([compiler, *FLAGS, *macros, *places], check=True, capture_output=True, text=True)
        self._calls = ctypes.CDLL(str(library))

    def run(self, name: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: "ctypes.Array[Any]") -> None:
        """Run a kernel on addresses of this process, given pointers to its arguments."""
        sizes = (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block)
        assert self._calls.run_kernel(name.encode(), *sizes, arguments) == 0, f"there is no kernel {name}"


class KernelDriver(FakeDriver):
    """A fake driver whose kernels really run, when their stream is synchronised. Blocks have guards behind them."""

    def __init__(self, *libraries: Library) -> None:
        super().__init__()
        self._libraries = {name: library for library in libraries for name in library.kernels}
        self._guarded: dict[int, NDArray[np.uint8]] = {}

    def allocate(self, size: int) -> int:
        address = super().allocate(size)
        self._guarded[address] = np.full(size + GUARD, GARBAGE, np.uint8)
        self.blocks[address] = self._guarded[address][:size]
        return address

    def launch(
        self,
        kernel: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        addresses: tuple[int, ...],
        numbers: tuple[int | float, ...],
        stream: int,
    ) -> None:
        super().launch(kernel, grid, block, addresses, numbers, stream)
        name = self.kernels[kernel][1]
        self.streams[stream].append(lambda: self._run(name, grid, block, addresses, numbers))

    def _run(
        self,
        name: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        addresses: tuple[int, ...],
        numbers: tuple[int | float, ...],
    ) -> None:
        pointers = [ctypes.c_void_p(self._place(address) if address else None) for address in addresses]
        values = [ctypes.c_float(n) if isinstance(n, float) else ctypes.c_int(n) for n in numbers]
        arguments = [ctypes.cast(ctypes.byref(one), ctypes.c_void_p) for one in (*pointers, *values)]
        given = (ctypes.c_void_p * len(arguments))(*arguments)
        self._libraries[name].run(name, grid, block, given)
        for address in filter(None, addresses):
            start = self._start(address)
            guard = self._guarded[start][self.blocks[start].size :]
            assert (guard == GARBAGE).all(), f"{name} writes behind a buffer"

    def _place(self, address: int) -> int:
        """Return where device memory is in this process. The address may lie within a block."""
        start = self._start(address)
        return self.memory(start, address - start + 1).ctypes.data + address - start

    def _start(self, address: int) -> int:
        return max((block for block in self.blocks if block <= address), default=address)
