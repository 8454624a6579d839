"""Return freed memory to the operating system."""

import contextlib
import ctypes


def release_unused_memory() -> None:
    """Return freed memory to the system. By default glibc keeps most of it: more than half of ONNX Runtime's models."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # the C library isn't glibc
        ctypes.CDLL(None).malloc_trim(0)
