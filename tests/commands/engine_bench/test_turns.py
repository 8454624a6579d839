"""Taking turns: who runs when, what is kept, and what an interruption leaves."""

from collections.abc import Callable

import numpy as np
import pytest

from keywarp.commands.engine_bench.footage import Window
from keywarp.commands.engine_bench.turns import Contestant, Times, Turn, take_turns
from keywarp.engines import BackendError
from keywarp.engines.comparison import ClipFrame

WINDOWS = [[ClipFrame(np.full((2, 2, 3), number, np.uint8), number, 0.0)] for number in range(2)]


def silent(stage: str, done: int, total: int | None) -> None:
    """Show nothing."""


def contestant(name: str, turn: Callable[[int], float]) -> Contestant:
    def run(window: Window) -> Times:
        return {"frame": [turn(int(window[0].image[0, 0, 0]))]}

    return Contestant(name, name, lambda: run)


def test_rounds_begin_at_different_ones_and_the_warm_up_does_not_count() -> None:
    order: list[tuple[str, int]] = []

    def turn(name: str) -> Callable[[int], float]:
        def run(window: int) -> float:
            order.append((name, window))
            return float(len(order))

        return run

    records = take_turns([contestant(name, turn(name)) for name in "ab"], WINDOWS, 2, (), silent)
    assert order == [("a", 0), ("b", 0), ("a", 0), ("b", 0), ("b", 1), ("a", 1)]
    assert records.by_name["a"].times["frame"] == [3.0, 6.0]
    assert records.rounds == 2


def test_an_interruption_leaves_the_times_so_far() -> None:
    turns = 0

    def stop(_: int) -> float:
        nonlocal turns
        turns += 1
        if turns == 3:  # the second round
            raise KeyboardInterrupt
        return 1.0

    contestants = [contestant("a", lambda _: 2.0), contestant("b", stop)]
    records = take_turns(contestants, WINDOWS, 10, (), silent)
    assert records.interrupted
    assert records.rounds == 1
    assert records.by_name["b"].times["frame"] == [1.0]


def test_one_that_cannot_be_opened_is_left_out_with_its_reason() -> None:
    def refuse() -> Turn:
        raise BackendError("no such arithmetic")

    contestants = [Contestant("a", "a", refuse), contestant("b", lambda _: 1.0)]
    records = take_turns(contestants, WINDOWS, 1, (BackendError,), silent)
    assert records.left_out == {"a": "no such arithmetic"}
    assert set(records.by_name) == {"b"}
    with pytest.raises(BackendError):
        take_turns(contestants, WINDOWS, 1, (), silent)
