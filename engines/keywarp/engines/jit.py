"""Compile functions to machine code, for loops over pixels and boxes that array operations can't express.

numba, which compiles them, comes with the extra `jit`. It takes more space than the rest of the engine, so every loop
on the path of a frame has a twin of array operations, which runs if numba isn't installed: with the same results up
to rounding, but more slowly.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

from keywarp.engines.compiler import COMPILES

if COMPILES:
    import numba

P = ParamSpec("P")
R = TypeVar("R")


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function with numba when it is first called. This is a decorator.

    The code releases the interpreter's lock while it runs. It follows IEEE arithmetic, so that equal inputs give equal
    outputs, and a division by zero doesn't raise. Compiled code is cached on disk next to the source, or else in the
    user's cache folder, if one of them is writable. Without numba the function is interpreted.

    Args:
        function: A function of numpy arrays and numbers.
    """
    return _compile(function, fastmath=False) if COMPILES else function


def jit_or(twin: Callable[P, R], *, reorder: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that compiles a function as `jit` does, or takes its twin if numba isn't installed.

    Args:
        twin: A function with the same results that uses array operations.
        reorder: Whether to add up sums in any order, so that vector instructions can. The last digits of such a sum
            depend on the processor.
    """

    def choose(function: Callable[P, R]) -> Callable[P, R]:
        if not COMPILES:
            return twin
        return _compile(function, fastmath={"reassoc", "contract", "nsz"} if reorder else False)

    return choose


def _compile(function: Callable[P, R], fastmath: bool | set[str]) -> Callable[P, R]:
    compile_one: Any = partial(numba.njit, nogil=True, error_model="numpy", fastmath=fastmath)
    try:
        dispatcher = compile_one(function, cache=True)
        _ignore_write_errors(dispatcher._cache)
    except RuntimeError:  # "cannot cache function: no locator available", as in a read-only installation
        dispatcher = compile_one(function)
    return cast("Callable[P, R]", dispatcher)


def _ignore_write_errors(cache: Any) -> None:
    """Keep a full disk from raising: code that can't be cached is compiled again next time."""
    save = cache.save_overload

    def save_overload(signature: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            save(signature, data)

    cache.save_overload = save_overload
