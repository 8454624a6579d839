"""Figures from counts that are made by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keywarp.engines import FixedInterval
from keywarp.engines.comparison import Comparison, Options, open_measure
from keywarp.engines.comparison.report import summarise
from keywarp.engines.comparison.tally import ClipTally, Cost, Group, Pair, SessionTally, Tally
from tests.engines.comparison.film import clip
from tests.tiny_bundle import tiny_bundle

HITS = {"none": {1: 8, 2: 2}, "dis": {1: 10, 2: 9}}  # matching boxes of 10, by source and age


def counts(hits: int) -> Any:
    """Boxes of class 1: of 10 found and 10 expected, these match."""
    return np.array([[0, 0, 0], [hits, 10, 10], [0, 0, 0]])


def summary(folder: Path, *, cost: float = 0.02, **further: Any) -> Comparison:
    """Return the figures of two sources with key frames of 100 and 120 ms."""
    options = Options(motions=("none", "dis"), intervals=(2, 3), **further)
    tally = Tally(1)
    tally.clips[0] = ClipTally(starts=4, decoded=11, evaluated=11, seconds=1.0, width=64, height=64, complete=True)
    tally.add_same(0, counts(10), counts(7))
    for source, name in enumerate(HITS):
        for age, hits in HITS[name].items():
            tally.add_counts(Group(0, source, age, 10 * age, cut=False), counts(hits))
    tally.costs = {0: Cost(0.1, 0.0, 0.2, 0.0), 1: Cost(0.12, cost, 0.24, 2 * cost)}
    for n in range(40):
        tally.pairs.append(Pair(0, 1, n, n + 1, 1, 0.1 * n, 0.1, n / 40, 3, n == 0, n / 50, n < 10))
    for schedule in options.schedules:
        for source in range(2):
            tally.sessions[source, schedule, 0] = SessionTally(counts(9), 11, 11, 1, 0.001)
    bundle = tiny_bundle(folder / "tiny", detection=True)
    measure = open_measure(bundle.manifest)
    return summarise(bundle, [clip([])], options, measure, tally, ("openvino", "CPU", "fp32"))


def test_costs_and_agreement_of_an_interval_count_its_key_frame(tmp_path: Path) -> None:
    found = summary(tmp_path)
    assert found.per_frame_ms == pytest.approx(100)
    assert found.self_agreement == pytest.approx(0.7)
    dis = found.sources["dis"]
    assert dis.mean == pytest.approx((1 + 0.9) / 2)
    assert dis.intervals[3].agreement == pytest.approx((10 + 10 + 9) / 30)
    assert dis.intervals[3].oldest == pytest.approx(0.9)
    assert dis.intervals[3].ms == pytest.approx((120 + 2 * 20) / 3)
    assert dis.intervals[3].speed_up == pytest.approx(100 / (160 / 3))
    assert all(s.intervals[n].speed_up <= n for s in found.sources.values() for n in (2, 3))


@pytest.mark.parametrize(
    ("keep", "cost", "source", "interval"),
    [
        (0.95, 0.02, "dis", 3),  # 53 ms; `none` agrees to .9 at most
        (0.9, 0.02, "none", 2),  # 50 ms
        (0.9, 0.005, "dis", 3),  # 43 ms
        (0.95, 0.2, None, 1),  # propagation costs more than the network
        (1.0, 0.02, "dis", 2),
    ],
)
def test_the_cheapest_that_keeps_the_agreement_is_recommended(
    keep: float, cost: float, source: str | None, interval: int, tmp_path: Path
) -> None:
    found = summary(tmp_path, keep=keep, cost=cost)
    best = found.recommended
    assert (best.source, best.interval) == (source, interval)
    assert best.agreement >= keep
    assert best.ms <= found.per_frame_ms


def test_an_adaptive_schedule_is_recommended_if_it_is_cheapest(tmp_path: Path) -> None:
    found = summary(tmp_path, keep=0.9, schedules={"adaptive 10": FixedInterval(10)})
    assert found.schedules[1].ms == pytest.approx((120 + 10 * 20) / 11 + 1)
    best = found.recommended
    assert (best.source, best.schedule, best.interval) == ("none", "adaptive 10", 11)


def test_worst_frames_and_reliability_are_of_single_frames(tmp_path: Path) -> None:
    dis = summary(tmp_path).sources["dis"]
    assert [worst.agreement for worst in dis.worst] == [1 / 40, 2 / 40]  # 5 % of 39; one is over a cut
    assert dis.worst_mean == pytest.approx(1.5 / 40)
    assert dis.replaced == pytest.approx(10 / 40)
    assert dis.reliability == pytest.approx(1)
    none = summary(tmp_path).sources["none"]
    assert none.worst == ()
    assert math.isnan(none.worst_mean)
    assert none.reliability is None
