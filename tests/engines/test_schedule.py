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
