"""Giving memory back to the operating system."""

import contextlib
import ctypes


def give_back() -> None:
    """Return what was freed. glibc keeps most of it: more than half of ONNX Runtime's models."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
