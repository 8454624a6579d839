"""A short run of the fuzzing of containers. `make fuzz` runs it longer."""

from tests.fuzz.containers import fuzz


def test_damaged_containers_give_their_own_errors_and_are_never_complete() -> None:
    assert fuzz(150, seed=1) == []
