from pathlib import Path
from typing import Any

import numba
import pytest

from keywarp.engines.jit import jit


@jit
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
    assert jit(scope["three"])() == 3


def test_a_full_disk_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "four.py"
    source.write_text("def four():\n    return 4\n")
    monkeypatch.syspath_prepend(tmp_path)
    from importlib import import_module

    four = import_module("four").four

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", full)
    assert jit(four)() == 4
