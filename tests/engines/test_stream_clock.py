"""The clock of a stream, with and without timestamps."""

from collections.abc import Sequence
from math import inf, nan

import pytest

from keywarp.engines.stream_clock import StreamClock


def times(frames: Sequence[tuple[float | None, float]]) -> list[float]:
    """Return a stream's times of frames, each with its timestamp and the time at which it is processed."""
    processed = iter([time for _, time in frames])
    clock = StreamClock(lambda: next(processed))
    return [clock.advance(timestamp) for timestamp, _ in frames]


def test_timestamps_count_however_late_their_frames_are_processed() -> None:
    assert times([(100.0, 7.0), (100.5, 9.0), (102.0, 9.1), (102.0, 50.0)]) == [0.0, 0.5, 2.0, 2.0]


def test_frames_without_timestamps_count_by_when_they_are_processed() -> None:
    assert times([(None, 7.0), (None, 9.0), (None, 9.5)]) == [0.0, 2.0, 2.5]


def test_where_timestamps_jump_backwards_the_real_time_counts_and_then_timestamps_again() -> None:
    assert times([(500.0, 0.0), (501.0, 1.0), (0.0, 3.0), (0.5, 9.0)]) == [0.0, 1.0, 3.0, 3.5]


def test_a_frame_without_a_timestamp_among_others_makes_no_jump() -> None:
    assert times([(500.0, 0.0), (None, 1.0), (502.0, 3.0), (503.0, 9.0)]) == [0.0, 1.0, 3.0, 4.0]


@pytest.mark.parametrize("timestamp", [nan, inf, -inf])
def test_a_timestamp_that_is_not_finite_counts_as_none(timestamp: float) -> None:
    assert times([(0.0, 0.0), (timestamp, 1.0), (2.0, 2.0), (3.0, 9.0)]) == [0.0, 1.0, 2.0, 3.0]
