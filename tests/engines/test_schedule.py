"""The paper's schedule."""

import numpy as np
import pytest

from keywarp.engines import FixedInterval, KeyReason

FRAME = np.zeros((16, 16, 3), np.uint8)


def test_a_key_frame_every_interval() -> None:
    pacer = FixedInterval(5).pacer()
    reasons = [pacer.place(FRAME).reason for _ in range(12)]
    assert reasons == ["start", None, None, None, None, "interval", None, None, None, None, "interval", None]


def test_interval_one_makes_every_frame_a_key_frame() -> None:
    pacer = FixedInterval(1).pacer()
    assert all(pacer.place(FRAME).is_key for _ in range(5))


def test_the_interval_begins_anew_at_a_forced_key_frame() -> None:
    pacer = FixedInterval(3).pacer()
    forced = [None, None, KeyReason.GAP, None, None, None, None]
    reasons = [pacer.place(FRAME, reason).reason for reason in forced]
    assert reasons == ["start", None, "gap", None, None, "interval", None]


def test_frames_left_out_count() -> None:
    pacer = FixedInterval(5).pacer()
    reasons = [pacer.place(FRAME, skipped=skipped).reason for skipped in (0, 2, 0, 0, 9, 0, 3)]
    assert reasons == ["start", None, None, "interval", "interval", None, "interval"]


def test_streams_that_share_a_schedule_do_not_mix() -> None:
    schedule = FixedInterval(2)
    one, two = schedule.pacer(), schedule.pacer()
    one.place(FRAME)
    assert two.place(FRAME).reason is KeyReason.START


def test_it_never_looks_at_a_frame() -> None:
    FixedInterval(2).pacer().place(None)  # type: ignore[arg-type]


def test_an_interval_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FixedInterval(0)
