"""The kernels of `warp.cu`: their source, names, launch geometry and compiler options. This needs no CUDA.

All kernels take the same arguments (`warp.cuh` documents the kernels)::

    (const T* features, const T* flow, const T* scale or null, T* warped,
     int batch, int channels, int height, int width, int flow_height, int flow_width)

The flow is always linear, (N, 2, h, w). In the layout `hwc8`, features, scale and warped features are channels-last
with the channels padded to a multiple of 8, (N, H, W, ceil(C / 8) * 8), as in TensorRT's `kHWC8`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DType = Literal["f32", "f16", "bf16"]
Layout = Literal["nchw", "hwc8"]

FOLDER = Path(__file__).parent
KERNELS: dict[tuple[Layout, DType], str] = {
    ("nchw", "f32"): "keywarp_warp_f32",
    ("nchw", "f16"): "keywarp_warp_f16",
    ("nchw", "bf16"): "keywarp_warp_bf16",
    ("hwc8", "f16"): "keywarp_warp_hwc8_f16",
    ("hwc8", "bf16"): "keywarp_warp_hwc8_bf16",
}

# The same values as in warp.cuh, which a test checks.
THREADS = 128  # per block
PIXELS = 2  # cells per thread, nchw
CHANNELS = 8  # channels per thread, nchw; per vector, hwc8
GRID_LIMIT = 65535  # blocks along y and z, on every GPU
CELL_LIMIT = 2**31 - 1  # cells of one map, which are indexed by int
SIDE_LIMIT = 2**24  # cells along a side; beyond it, float positions can't distinguish cells


@dataclass(frozen=True)
class Launch:
    """A kernel's name, its grid of blocks and its block of threads, (x, y, z) each. It uses no shared memory."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]


def source(name: str = "warp") -> str:
    """Return the whole source of `<name>.cu` in one text without includes, for NVRTC."""
    text, header = (FOLDER / f"{name}.cu").read_text("utf-8"), FOLDER / f"{name}.cuh"
    return text.replace(f'#include "{header.name}"', header.read_text("utf-8")) if header.is_file() else text


def nvrtc_options(major: int, minor: int) -> tuple[str, ...]:
    """Return the compiler options for a GPU of a compute capability."""
    return (f"--gpu-architecture=sm_{major}{minor}", "--std=c++17")


def launch(layout: Layout, dtype: DType, batch: int, channels: int, height: int, width: int) -> Launch:
    """Return the launch that warps features of shape (N, C, H, W).

    Args:
        layout: The memory layout of features, scale and warped features.
        dtype: The data type of all tensors.
        batch: The batch size N.
        channels: The number of channels C.
        height: The features' height H in cells.
        width: The features' width W in cells.

    Raises:
        ValueError: If there is no kernel for the layout and type, or a dimension is below 1 or above a grid's limit.
    """
    kernel = KERNELS.get((layout, dtype))
    if kernel is None:
        raise ValueError(f"there is no warp kernel for {dtype} in {layout}, only {', '.join(KERNELS.values())}")
    if min(batch, channels, height, width) < 1 or max(height, width) > SIDE_LIMIT or height * width > CELL_LIMIT:
        raise ValueError(
            f"can't warp features of shape {(batch, channels, height, width)}: they are empty or too large"
        )
    groups = -(-channels // CHANNELS)
    if layout == "nchw":
        pixels = THREADS * PIXELS  # of a block
        grid, block = (-(-height * width // pixels), groups, batch), (THREADS, 1, 1)
    else:
        lanes = min(32, 1 << (groups - 1).bit_length())  # threads that share a cell
        pixels = THREADS // lanes
        grid, block = (-(-height * width // pixels), 1, batch), (lanes, pixels, 1)
    if max(grid[1:]) > GRID_LIMIT:
        raise ValueError(f"features of shape {(batch, channels, height, width)} don't fit into one launch")
    return Launch(kernel, grid, block)
