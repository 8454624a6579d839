"""Bound what FFmpeg may allocate at once."""

import ctypes
from typing import Final

import av._core

LARGEST: Final = 128 * 2**20  # bytes; tables of samples are far below it
_BYTES_PER_PIXEL: Final = 8  # RGBA with 16 bits


def limit_allocations(max_pixels: int) -> None:
    """Let FFmpeg refuse allocations that no valid video of this size needs, in all of this process.

    It believes what a file claims: tables of samples, extra data, sizes of packets. PyAV doesn't offer the function,
    but its libraries have it.

    Args:
        max_pixels: The most pixels of a frame.
    """
    library = ctypes.CDLL(av._core.__file__)  # a symbol is looked up in what it is linked with, too
    library.av_max_alloc.argtypes = [ctypes.c_size_t]
    library.av_max_alloc.restype = None
    library.av_max_alloc(max(LARGEST, _BYTES_PER_PIXEL * max_pixels))
