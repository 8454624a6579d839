"""What the times say: speed-ups, what Eq. 7 predicts, and the share of the peak."""

import pytest

from keywarp.commands.engine_bench.figures import speed_ups, summarise_frames, summarise_keywarp
from keywarp.commands.engine_bench.operations import Operations
from keywarp.commands.engine_bench.turns import Record

OPERATIONS = Operations(features=800, head=200, warp=10, flow=80)


def record(**times: list[float]) -> Record:
    made = Record(memory=5)
    for what, seconds in times.items():
        made.times[what].extend(seconds)
    return made


def test_intervals_are_measured_at_ten_and_computed_otherwise() -> None:
    times = record(key=[0.4, 0.5, 0.3], propagated=[0.02] * 27, window=[0.06, 0.07, 0.05], host=[0.001])
    row = summarise_keywarp("x int8", "x", "int8", "openvino", times, 1200.0, OPERATIONS, {"int8": 5000.0})
    assert row is not None
    assert row.intervals[5].ms == pytest.approx((400 + 4 * 20) / 5)
    assert row.intervals[10].ms == pytest.approx(60)
    assert row.intervals[10].p90 == pytest.approx(68)
    assert row.intervals[20].p10 is None
    assert row.intervals[10].speed_up == pytest.approx(1200 / 60)
    assert row.intervals[10].predicted == pytest.approx(10 / (1 + 9 * 0.1))
    assert row.intervals[10].reached == pytest.approx(400 / 60 / (10 / 1.9))
    assert row.intervals[10].predicted_with_head == pytest.approx(10 / (1 + 9 * 0.29))
    assert row.key_peak_share == pytest.approx(1000 / 0.4 / 5000)
    found = speed_ups([row])
    assert found["x"] == {"5": pytest.approx(12.5), "10": pytest.approx(20), "20": pytest.approx(1200 / 39)}


def test_the_profile_names_what_is_left() -> None:
    times = record(key=[0.4], propagated=[0.02], window=[0.06], host=[0.001])
    parts = {"flow": 9.0, "warp": 2.0, "head": 5.0}
    row = summarise_keywarp("x int8", "x", "int8", "openvino", times, None, OPERATIONS, {"int8": 290_000.0}, parts)
    assert row is not None
    assert row.profile is not None
    assert row.profile.rest == pytest.approx(20 - 9 - 2 - 5 - 1)
    assert row.profile.at_peak == pytest.approx(1)
    incomplete = summarise_keywarp("x int8", "x", "int8", "openvino", times, None, OPERATIONS, {}, {"warp": 2.0})
    assert incomplete is not None
    assert incomplete.profile is None


def test_without_a_reference_there_are_no_speed_ups() -> None:
    times = record(key=[0.4], propagated=[0.02], window=[0.06], host=[0.001])
    row = summarise_keywarp("x int8", "x", "int8", "openvino", times, None, OPERATIONS, {})
    assert row is not None
    assert row.intervals[10].speed_up is None
    assert row.key_peak_share is None
    assert speed_ups([row]) == {}


def test_what_had_no_turn_is_no_row() -> None:
    assert summarise_frames("x fp32", "per frame", "fp32", record(), None, None, {}) is None
    assert summarise_keywarp("x fp32", "x", "fp32", "openvino", record(key=[1.0]), None, OPERATIONS, {}) is None
