"""The paper's fixed schedule."""

import numpy as np
import pytest

from keywarp.engines import FixedInterval, KeyReason

FRAME = np.zeros((16, 16, 3), np.uint8)


def test_every_interval_begins_with_a_key_frame() -> None:
    stream = FixedInterval(5).for_stream()
    reasons = [stream.decide(FRAME).reason for _ in range(12)]
    assert reasons == ["start", None, None, None, None, "interval", None, None, None, None, "interval", None]


def test_interval_one_makes_every_frame_a_key_frame() -> None:
    stream = FixedInterval(1).for_stream()
    assert all(stream.decide(FRAME).is_key for _ in range(5))


def test_a_forced_key_frame_restarts_the_interval() -> None:
    stream = FixedInterval(3).for_stream()
    forced = [None, None, KeyReason.GAP, None, None, None, None]
    reasons = [stream.decide(FRAME, reason).reason for reason in forced]
    assert reasons == ["start", None, "gap", None, None, "interval", None]


@pytest.mark.parametrize("phase", [0, 1, 4])
def test_a_phase_shortens_the_first_interval_only(phase: int) -> None:
    stream = FixedInterval(5, phase).for_stream()
    keys = [index for index in range(20) if stream.decide(FRAME).is_key]
    assert keys == [0, *range(5 - phase, 20, 5)]


def test_streams_of_different_phases_have_no_key_frame_together_after_the_first() -> None:
    streams = [FixedInterval(6, phase).for_stream() for phase in range(6)]
    turns = [sum(stream.decide(FRAME).is_key for stream in streams) for _ in range(30)]
    assert turns == [6, *[1] * 29]


@pytest.mark.parametrize("phase", [-1, 3])
def test_a_phase_outside_the_interval_is_refused(phase: int) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 2 frames, got {phase}"):
        FixedInterval(3, phase)


def test_streams_that_share_a_schedule_do_not_mix() -> None:
    schedule = FixedInterval(2)
    one, two = schedule.for_stream(), schedule.for_stream()
    one.decide(FRAME)
    assert two.decide(FRAME).reason is KeyReason.START


def test_a_fixed_interval_never_reads_a_frame() -> None:
    FixedInterval(2).for_stream().decide(None)  # type: ignore[arg-type]


def test_an_interval_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FixedInterval(0)
