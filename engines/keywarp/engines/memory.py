"""Bound what glibc keeps of freed memory, and return it to the operating system."""

import contextlib
import ctypes
import os
from typing import Final

ARENAS: Final = 2
_M_ARENA_MAX: Final = -8  # of malloc.h


def limit_arenas() -> None:
    """Let glibc make at most two arenas, unless `MALLOC_ARENA_MAX` says otherwise. Call this before threads start.

    An arena is a pool that threads allocate from. By default there are up to eight for each core. Each is fragmented on
    its own, so that memory grows for thousands of streams although no more of it is in use.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(OSError, AttributeError, TypeError):  # the C library isn't glibc
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS)


def release_unused_memory() -> None:
    """Return freed memory to the system. By default glibc keeps most of it: more than half of ONNX Runtime's models."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # the C library isn't glibc
        ctypes.CDLL(None).malloc_trim(0)
