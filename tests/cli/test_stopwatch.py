import pickle
import random
import time
from collections.abc import Iterator

import numpy as np
import pytest

from keywarp.cli.stopwatch import MAX_SPANS, Coverage, Latencies, Stopwatch
from keywarp.client import ProcessedFrame
from tests.client.media import result


def covered(spans: list[tuple[float, float]]) -> float:
    coverage = Coverage()
    for start, end in spans:
        coverage.add(start, end)
    return coverage.seconds


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0),
        ([(1, 3)], 2),
        ([(1, 3), (5, 6)], 3),
        ([(5, 6), (1, 3)], 3),
        ([(1, 3), (2, 6)], 5),
        ([(2, 3), (1, 9), (4, 5)], 8),
        ([(1, 2), (4, 5), (7, 8), (2, 7)], 7),
        ([(1, 2), (1, 2)], 1),
        ([(1, 2), (2, 3)], 2),
    ],
)
def test_time_in_which_spans_overlap_counts_once(spans: list[tuple[float, float]], seconds: float) -> None:
    assert covered(spans) == seconds


def test_the_sum_is_exact_for_many_spans() -> None:
    chance = random.Random(1)
    spans, cells = [], np.zeros(200_000, bool)
    for i in range(10_000):  # each tick of the clock is covered or not
        start = max(0, 10 * i - chance.randrange(50))
        end = start + chance.randrange(12)
        spans.append((float(start), float(end)))
        cells[start:end] = True
    assert covered(spans) == cells.sum()


def test_percentiles_are_those_of_all_latencies() -> None:
    latencies = Latencies()
    assert latencies.summary() is None
    seconds = np.random.default_rng(1).lognormal(-4, 1, 20_000)
    for one in seconds:
        latencies.add(float(one))
    found = latencies.summary()
    assert found is not None
    assert (found.p50, found.p99) == pytest.approx(np.percentile(seconds, (50, 99)), rel=0.002)


def test_memory_does_not_grow_with_the_number_of_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def endless() -> Iterator[ProcessedFrame]:
        nonlocal now
        one = result(0)
        for frame in range(20_000):
            now += 1.0  # waited for; drawing takes as long, so that there is a gap after each frame
            yield ProcessedFrame(one, None, 0.01 + frame % 100 * 1e-4, now)

    watch = Stopwatch("test")
    sizes = []
    for number, _ in enumerate(watch.timed(endless())):
        now += 1.0
        if number % 5000 == 4999:
            sizes.append(len(pickle.dumps(watch)))
    assert sizes[0] == sizes[-1] < 24 * MAX_SPANS  # bytes: a span has two numbers of 9 bytes
    assert watch.summary().seconds == pytest.approx(20_000)
