from importlib import import_module
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines.jit import jit, jit_or


@jit
def halves(number: int) -> int:
    count = 0
    while number % 2 == 0:
        number //= 2
        count += 1
    return count


def add(values: NDArray[np.float32]) -> np.float32:
    return np.float32(values.sum())


@jit_or(add, reorder=True)
def total(values: NDArray[np.float32]) -> np.float32:
    result = np.float32(0)
    for value in values:
        result += value
    return result


def test_a_compiled_function_returns_its_result() -> None:
    assert halves(96) == 5


def test_a_sum_in_any_order_is_right_up_to_rounding() -> None:
    values = np.random.default_rng(0).normal(size=1001).astype(np.float32)
    assert total(values) == pytest.approx(values.sum(), abs=1e-3)


def test_a_function_that_cannot_be_cached_is_still_compiled() -> None:
    scope: dict[str, Any] = {}
    exec("def three(): return 3", scope)  # no source file, as in a read-only installation
    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(cache=True)(scope["three"])
    assert jit(scope["three"])() == 3


def test_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "four.py"
    source.write_text("def four():\n    return 4\n")
    monkeypatch.syspath_prepend(tmp_path)
    resource = pytest.importorskip("resource")
    import signal

    four = import_module("four").four

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails as on a full disk
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        assert jit(four)() == 4
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [file for file in tmp_path.rglob("*.nb?") if file.stat().st_size] == []
