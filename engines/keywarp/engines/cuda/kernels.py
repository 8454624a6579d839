"""The kernels of `warp.cu`: their source, names, launch geometry and compiler options. Nothing here imports CUDA.

All kernels take the same arguments (see `warp.cuh` for what they do)::

    (const T* features, const T* flow, const T* scale or null, T* warped,
     int batch, int channels, int height, int width, int flow_height, int flow_width)

The flow is always linear, (N, 2, h, w). In the layout `hwc8` features, scale and warped are channels-last with the
channels padded to a multiple of 8, as TensorRT's `kHWC8`: (N, H, W, ceil(C / 8) * 8).
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

# As in warp.cuh; a test holds the two together.
THREADS = 128  # per block
PIXELS = 2  # per thread, nchw
CHANNELS = 8  # per thread, nchw; per vector, hwc8
GRID_LIMIT = 65535  # blocks along y and z, on every GPU
CELL_LIMIT = 2**31 - 1  # of one map: cells are indexed by int
SIDE_LIMIT = 2**24  # positions are float: beyond, cells can't be told apart


@dataclass(frozen=True)
class Launch:
    """Which kernel, with how many blocks of how many threads, (x, y, z) each. No shared memory."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]


def source() -> str:
    """The whole source in one text, for NVRTC: it includes nothing."""
    text = (FOLDER / "warp.cu").read_text("utf-8")
    return text.replace('#include "warp.cuh"', (FOLDER / "warp.cuh").read_text("utf-8"))


def nvrtc_options(major: int, minor: int) -> tuple[str, ...]:
    """Compiler options for a GPU of this compute capability."""
    return (f"--gpu-architecture=sm_{major}{minor}", "--std=c++17")


def launch(layout: Layout, dtype: DType, batch: int, channels: int, height: int, width: int) -> Launch:
    """The launch that warps (N, C, H, W) features.

    Args:
        layout: Of features, scale and warped.
        dtype: Of all tensors.
        batch: N.
        channels: C.
        height: H.
        width: W.

    Raises:
        ValueError: There is no kernel for that, or a side is below 1 or beyond what a grid holds.
    """
    kernel = KERNELS.get((layout, dtype))
    if kernel is None:
        raise ValueError(f"no warp kernel for {dtype} in {layout}; there are {', '.join(KERNELS.values())}")
    if min(batch, channels, height, width) < 1 or max(height, width) > SIDE_LIMIT or height * width > CELL_LIMIT:
        raise ValueError(f"can't warp features of shape {(batch, channels, height, width)}")
    groups = -(-channels // CHANNELS)
    if layout == "nchw":
        pixels = THREADS * PIXELS  # of a block
        grid, block = (-(-height * width // pixels), groups, batch), (THREADS, 1, 1)
    else:
        lanes = min(32, 1 << (groups - 1).bit_length())  # threads that share a pixel
        pixels = THREADS // lanes
        grid, block = (-(-height * width // pixels), 1, batch), (lanes, pixels, 1)
    if max(grid[1:]) > GRID_LIMIT:
        raise ValueError(f"features of shape {(batch, channels, height, width)} don't fit one launch")
    return Launch(kernel, grid, block)


def flow_factor(height: int, width: int, flow_height: int, flow_width: int) -> int:
    """How many of the flow's cells lie along one of the features': a power of 2, as in `keywarp.networks.Warp`.

    Raises:
        ValueError: The flow is of no such size.
    """
    factor = 1
    while -(-flow_height // factor) > height or -(-flow_width // factor) > width:
        factor *= 2
    if (-(-flow_height // factor), -(-flow_width // factor)) != (height, width):
        raise ValueError(
            f"a flow of {flow_width}x{flow_height} doesn't fit features of {width}x{height}: it must be as large, "
            "or larger by a power of 2 (rounded up)"
        )
    return factor
