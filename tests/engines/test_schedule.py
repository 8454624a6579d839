"""The paper's schedule."""

import pytest

from keywarp.engines import FixedInterval


def test_a_key_frame_every_interval() -> None:
    schedule = FixedInterval(5)
    assert [index for index in range(1, 12) if schedule.is_key(index, key_index=0)] == [5, 6, 7, 8, 9, 10, 11]
    assert schedule.is_key(1, key_index=0) is False


def test_interval_one_makes_every_frame_a_key_frame() -> None:
    assert FixedInterval(1).is_key(8, key_index=7)


def test_an_interval_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FixedInterval(0)
