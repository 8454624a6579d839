"""Compiles `warp.cu` for the CPU, with sanitizers, and runs it on arrays."""

import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16
from numpy.typing import NDArray

from keywarp.engines.cuda import kernels
from keywarp.engines.cuda.kernels import DType, Layout

HERE = Path(__file__).parent
FLAGS = (
    *("-std=c++20", "-O0", "-g1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
    *("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"),
)
NUMPY: dict[DType, Any] = {"f32": np.float32, "f16": np.float16, "bf16": bfloat16}

Floats = NDArray[np.float32]


class ShimError(Exception):
    """The program ended with an error, such as a sanitizer's finding or a crash."""


@dataclass(frozen=True, eq=False)
class Case:
    """One call of a kernel. The arrays hold values that `dtype` can represent, whatever type they have."""

    features: Floats  # (N, C, H, W)
    flow: Floats  # (N, 2, h, w)
    scale: Floats | None
    dtype: DType = "f32"
    layout: Layout = "nchw"
    shifted: int = 0  # values by which all tensors are off their natural alignment

    @classmethod
    def of(
        cls,
        features: NDArray[Any],
        flow: NDArray[Any],
        scale: NDArray[Any] | None,
        dtype: DType = "f32",
        layout: Layout = "nchw",
        shifted: int = 0,
    ) -> "Case":
        """Make a case, with its values rounded to the type."""

        def rounded(array: NDArray[Any]) -> Floats:
            with np.errstate(over="ignore", invalid="ignore"):
                return array.astype(NUMPY[dtype]).astype(np.float32)

        return cls(rounded(features), rounded(flow), None if scale is None else rounded(scale), dtype, layout, shifted)

    def packed(self) -> bytes:
        """Return the case in the form that shim.cpp reads."""
        batch, channels, height, width = self.features.shape
        flow_height, flow_width = self.flow.shape[2:]
        launch = kernels.launch(self.layout, self.dtype, batch, channels, height, width)
        header = struct.pack(
            "<10i6I",
            list(kernels.KERNELS.values()).index(launch.kernel),
            *(batch, channels, height, width, flow_height, flow_width),
            *(self.scale is not None, self.shifted, flow_factor(height, width, flow_height, flow_width)),
            *(*launch.grid, *launch.block),
        )
        scale = b"" if self.scale is None else self._laid_out(self.scale)
        return header + self._laid_out(self.features) + self.flow.astype(NUMPY[self.dtype]).tobytes() + scale

    def unpacked(self, data: bytes) -> tuple[Floats, Floats]:
        """Return the warped features that the kernel wrote, and the padding behind their channels."""
        batch, channels, height, width = self.features.shape
        values = np.frombuffer(data, NUMPY[self.dtype]).astype(np.float32)
        if self.layout == "nchw":
            return values.reshape(self.features.shape), np.zeros(0, np.float32)
        last = values.reshape(batch, height, width, -1)
        return np.moveaxis(last[..., :channels], -1, 1), last[..., channels:]

    @property
    def size(self) -> int:
        """The number of bytes that the kernel writes."""
        return len(self._laid_out(self.features))

    def _laid_out(self, array: Floats) -> bytes:
        if self.layout == "hwc8":  # a NaN in the padding must not matter
            padding = -array.shape[1] % kernels.CHANNELS
            last = np.moveaxis(array, 1, -1)
            array = np.pad(last, [(0, 0), (0, 0), (0, 0), (0, padding)], constant_values=np.nan)
        return array.astype(NUMPY[self.dtype]).tobytes()


@dataclass(frozen=True)
class Shim:
    """A compiled program."""

    program: Path

    @classmethod
    def build(cls, folder: Path, source: str) -> "Shim":
        """Compile a source text instead of warp.cuh.

        Raises:
            subprocess.CalledProcessError: If it doesn't compile.
        """
        compiler = shutil.which("g++")
        if compiler is None:
            pytest.skip("no g++ to run the CUDA source on the CPU with (make packages)")
        (folder / "warp.cuh").write_text(source)
        shutil.copy(kernels.FOLDER / "warp.cu", folder)
        program = folder / "shim"
        command = [compiler, *FLAGS, f"-I{folder}", f"-I{HERE}", str(HERE / "shim.cpp"), "-o", str(program)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return cls(program)

    def run(self, cases: Sequence[Case]) -> list[Floats]:
        """Run the kernels; each result is (N, C, H, W).

        Raises:
            ShimError: If the program failed.
        """
        done = subprocess.run(
            [self.program],
            input=b"".join(case.packed() for case in cases),
            capture_output=True,
            check=False,
            env=os.environ | {"ASAN_OPTIONS": "detect_leaks=0"},  # leak detection needs ptrace, which containers lack
        )
        if done.returncode:
            raise ShimError(done.stderr.decode(errors="replace"))
        results, start = [], 0
        for case in cases:
            warped, padding = case.unpacked(done.stdout[start : start + case.size])
            if padding.any():  # NaN counts as well
                raise ShimError("the padding isn't zero")
            results.append(warped)
            start += case.size
        return results


def flow_factor(height: int, width: int, flow_height: int, flow_width: int) -> int:
    """Return how many cells of the flow one cell of the features spans per side, a power of 2.

    `keywarp.networks.Warp` has the same rule.

    Raises:
        ValueError: If the flow's size doesn't fit the features'.
    """
    factor = 1
    while -(-flow_height // factor) > height or -(-flow_width // factor) > width:
        factor *= 2
    if (-(-flow_height // factor), -(-flow_width // factor)) != (height, width):
        raise ValueError(
            f"a flow of {flow_width}x{flow_height} doesn't fit features of {width}x{height}: it must have the "
            "same size, or be larger by a power of 2 (rounded up)"
        )
    return factor
