"""The paper's fixed schedule, and its elastic variant."""

from itertools import pairwise

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


def test_skipped_frames_count_towards_the_interval() -> None:
    stream = FixedInterval(5).for_stream()
    reasons = [stream.decide(FRAME, skipped=skipped).reason for skipped in (0, 2, 0, 0, 9, 0, 3)]
    assert reasons == ["start", None, None, "interval", "interval", None, "interval"]


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


def processed(schedule: FixedInterval, key: float, propagated: float = 0.5, frames: int = 2000) -> tuple[int, int]:
    """Count the frames and key frames that a device processes from a camera if it always takes the newest frame.

    The costs of a key frame and of a propagated frame are in periods of the camera.
    """
    stream = schedule.for_stream()
    free, count, keys, skipped = 0.0, 0, 0, 0
    for now in range(frames):
        if free > now + 1:  # the next frame arrives before the device is free
            skipped += 1
            continue
        is_key = stream.decide(FRAME, skipped=skipped).is_key
        free = max(free, now) + (key if is_key else propagated)
        count, keys, skipped = count + 1, keys + is_key, 0
    return count, keys


def test_an_elastic_interval_gets_more_frames_through_an_overloaded_device() -> None:
    rigid, elastic = FixedInterval(10), FixedInterval(10, maximum=60)
    assert processed(rigid, key=12)[0] < 0.1 * 2000  # nearly every processed frame is a key frame
    frames, keys = processed(elastic, key=12)
    assert frames > 0.75 * 2000
    assert keys < 2000 / 50


def test_an_elastic_interval_does_not_grow_while_no_frames_are_skipped() -> None:
    assert processed(FixedInterval(10, maximum=60), key=1) == processed(FixedInterval(10), key=1) == (2000, 200)


def test_an_elastic_interval_shrinks_back_after_an_overload() -> None:
    stream = FixedInterval(10, maximum=60).for_stream()
    for _ in range(40):
        stream.decide(FRAME, skipped=9)
    reasons = [stream.decide(FRAME).is_key for _ in range(1000)]
    keys = [index for index, is_key in enumerate(reasons) if is_key]
    intervals = [later - earlier for earlier, later in pairwise(keys)]
    assert intervals[0] > 40
    assert intervals == sorted(intervals, reverse=True)
    assert intervals[-1] == 10


def test_a_maximum_below_the_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="below"):
        FixedInterval(10, maximum=9)
