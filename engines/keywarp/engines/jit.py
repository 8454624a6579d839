"""Functions compiled to machine code: loops over pixels, boxes and messages that arrays don't express."""

import contextlib
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function with numba when it is first called; a decorator.

    The code releases the interpreter's lock while it runs, and keeps to IEEE arithmetic, so that equal inputs give
    equal outputs; a division by zero is no error. It is cached on disk, next to the source or in the user's cache
    folder, where one can be written.

    Args:
        function: What to compile: of numpy arrays and numbers.
    """
    try:
        dispatcher = numba.njit(function, nogil=True, error_model="numpy", cache=True)
        _forgive(dispatcher._cache)
        return cast("Callable[P, R]", dispatcher)
    except RuntimeError:  # "cannot cache function: no locator available": a read-only installation
        return cast("Callable[P, R]", numba.njit(function, nogil=True, error_model="numpy"))


def _forgive(cache: Any) -> None:
    """Make a full disk no reason to fail: what can't be kept is compiled again next time."""
    save = cache.save_overload

    def save_overload(signature: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            save(signature, data)

    cache.save_overload = save_overload
