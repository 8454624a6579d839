"""The search for the largest number of cameras, and what is judged."""

import random

import pytest

from keywarp.commands.load_bench.objective import Objective
from keywarp.commands.load_bench.ramp import Ramp
from keywarp.commands.load_bench.tally import Tally


@pytest.mark.parametrize("first", [1, 4, 100])
@pytest.mark.parametrize("limit", [0, 1, 3, 4, 17, 64])
def test_the_limit_is_found_and_measured_as_often_as_it_should_be(first: int, limit: int) -> None:
    ramp, measured = Ramp(first, repeats=3), list[int]()
    while (cameras := ramp.next()) is not None:
        measured.append(cameras)
        ramp.add(cameras, cameras <= limit)
    assert ramp.limit == limit
    for number in (limit, limit + 1):
        assert number == 0 or measured.count(number) == 2  # a third one couldn't change the majority
    assert len(measured) <= 18


def test_a_single_bad_measurement_at_the_limit_does_not_count() -> None:
    ramp, chance, limits = Ramp(4, repeats=5), random.Random(1), list[int]()
    for _ in range(20):
        ramp = Ramp(4, repeats=5)
        while (cameras := ramp.next()) is not None:
            ramp.add(cameras, (cameras <= 12) != (chance.random() < 0.1 and cameras in (12, 13)))
        limits.append(ramp.limit)
    assert sum(abs(limit - 12) <= 1 for limit in limits) >= 18


def test_an_objective_is_parsed_and_judged() -> None:
    objective = Objective.parse("p50=50ms, p99=0.2s, lost=2%")
    assert objective == Objective(((50.0, 0.05), (99.0, 0.2)), 0.02)
    assert Objective.parse("lost=5%").latencies == Objective().latencies
    tally = Tally(10.0, 20.0)
    for number in range(100):
        due = 10 + number / 10
        tally.frame(due, due)
        result = {"type": "result", "kind": "propagated", "timings": {"queue": 0.01}, "key_age_seconds": 0.5}
        tally.respond(due, due + 0.04, result)
    assert objective.misses(tally) == []
    tally.frame(10.0, 10.3)
    tally.respond(10.0, 10.3, {"type": "dropped", "reason": "newer"})
    tally.frame(9.9, 10.0)  # before the counted part
    tally.respond(9.9, 11.0, {"type": "dropped", "reason": "newer"})
    assert tally.lost == {"newer": 1}
    assert objective.misses(tally) == []
    for _ in range(2):
        tally.frame(11.0, 11.0)
        tally.lose(11.0, "no credit")
    assert objective.misses(tally) == ["2.9 % lost"]
    for _ in range(2):
        tally.frame(12.0, 12.0)
        tally.respond(12.0, 13.0, {"type": "result", "kind": "key", "timings": {}})
    assert [missed.split()[0] for missed in objective.misses(tally)] == ["p99", "2.9"]
    assert len(tally.latencies["key"]) == 2
    assert tally.all_latencies.percentile(100) == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("text", ["", "p99", "p101=3s", "p99=200", "lost=1", "p99=200ms;lost=1%"])
def test_other_objectives_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not like"):
        Objective.parse(text)
