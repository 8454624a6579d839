from typing import Any

import numba
import pytest

from keywarp.engines.compiled import compiled


@compiled
def halves(number: int) -> int:
    count = 0
    while number % 2 == 0:
        number //= 2
        count += 1
    return count


def test_a_compiled_function_does_what_it_says() -> None:
    assert halves(96) == 5


def test_a_function_that_cannot_be_cached_is_compiled_all_the_same() -> None:
    scope: dict[str, Any] = {}
    exec("def three(): return 3", scope)  # no source file, as in a read-only installation
    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(cache=True)(scope["three"])
    assert compiled(scope["three"])() == 3
