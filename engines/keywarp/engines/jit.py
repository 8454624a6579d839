"""Compile functions to machine code, for loops over pixels and boxes that array operations can't express."""

import contextlib
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function with numba when it is first called. This is a decorator.

    The code releases the interpreter's lock while it runs. It follows IEEE arithmetic, so that equal inputs give equal
    outputs, and a division by zero doesn't raise. Compiled code is cached on disk next to the source, or else in the
    user's cache folder, if one of them is writable.

    Args:
        function: A function of numpy arrays and numbers.
    """
    try:
        dispatcher: Any = numba.njit(function, nogil=True, error_model="numpy", cache=True)
        _ignore_write_errors(dispatcher._cache)
        return cast("Callable[P, R]", dispatcher)
    except RuntimeError:  # "cannot cache function: no locator available", as in a read-only installation
        return cast("Callable[P, R]", numba.njit(function, nogil=True, error_model="numpy"))


def _ignore_write_errors(cache: Any) -> None:
    """Keep a full disk from raising: code that can't be cached is compiled again next time."""
    save = cache.save_overload

    def save_overload(signature: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            save(signature, data)

    cache.save_overload = save_overload
