"""What the processor can do."""

from collections.abc import Iterator

import pytest

from keywarp.engines import processor
from keywarp.engines.processor import int8_instructions


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    int8_instructions.cache_clear()
    yield
    int8_instructions.cache_clear()


@pytest.mark.parametrize(
    ("flags", "instructions"),
    [
        ({"avx2", "avx512_vnni", "amx_int8"}, "amx"),
        ({"avx2", "avx512_vnni"}, "vnni"),
        ({"avx2", "avx_vnni"}, "vnni"),
        ({"asimd", "asimddp", "i8mm"}, "i8mm"),
        ({"asimd", "asimddp"}, "dotprod"),
        ({"avx2"}, ""),
    ],
)
def test_the_fastest_instructions_for_int8_are_named(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], instructions: str
) -> None:
    monkeypatch.setattr(processor, "_flags", lambda: frozenset(flags))
    assert int8_instructions() == instructions
