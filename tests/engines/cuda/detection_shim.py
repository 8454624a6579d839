"""Compiles `detection.cu` for the CPU and runs its kernels on a fake driver's memory."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from keywarp.engines.cuda import kernels
from tests.engines.tensorrt.fake_driver import GARBAGE, FakeDriver

if TYPE_CHECKING:
    from numpy.typing import NDArray

HERE = Path(__file__).parent
FLAGS = (
    *("-std=c++20", "-O1", "-g1", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"),
    *("-Wno-unknown-pragmas", "-fsanitize=undefined,float-cast-overflow", "-fno-sanitize-recover=all"),
)
GUARD = 64  # bytes behind each block


def build(folder: Path, source: str | None = None) -> ctypes.CDLL:
    """Compile the kernels.

    Args:
        folder: Where the library is written to.
        source: The text in place of detection.cuh.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to run the CUDA source on the CPU with (make packages)")
    text = (kernels.FOLDER / "detection.cuh").read_text("utf-8") if source is None else source
    (folder / "detection.cuh").write_text(text, "utf-8")
    shutil.copy(kernels.FOLDER / "detection.cu", folder)
    library = folder / "detection.so"
    command = [compiler, *FLAGS, f"-I{folder}", f"-I{HERE}", str(HERE / "detection_shim.cpp"), "-o", str(library)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return ctypes.CDLL(str(library))


class DetectionDriver(FakeDriver):
    """A fake driver whose kernels really run, when their stream is synchronised. Blocks have guards behind them."""

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__()
        self._library = library
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
        pointers = [ctypes.c_void_p(self.memory(address, 1).ctypes.data if address else None) for address in addresses]
        values = [ctypes.c_float(n) if isinstance(n, float) else ctypes.c_int(n) for n in numbers]
        arguments = [ctypes.cast(ctypes.byref(one), ctypes.c_void_p) for one in (*pointers, *values)]
        given = (ctypes.c_void_p * len(arguments))(*arguments)
        sizes = (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block)
        assert self._library.run_kernel(name.encode(), *sizes, given) == 0, f"there is no kernel {name}"
        for address in filter(None, addresses):
            guard = self._guarded[address][self.blocks[address].size :]
            assert (guard == GARBAGE).all(), f"{name} writes behind a buffer"
