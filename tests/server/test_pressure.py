"""The pressure on a device, on a clock that the tests set."""

import pytest

from keywarp.server.devices import HIGH_WATERMARK, LOW_WATERMARK, TIME_CONSTANT, Pressure
from tests.server.clock import Clock


class FakeDevice:
    """A device whose streams wait as long as the test says, on its clock."""

    def __init__(self, clock: Clock, limit: float = 1.0) -> None:
        self.clock = clock
        self.depth = 1
        self.pressure = Pressure(limit, lambda: self.depth, clock=clock)

    def run(self, seconds: float, turn: float, frames: int = 100) -> bool:
        """Process frames for some seconds, each after a wait of `turn` seconds; return whether the pressure is high."""
        for _ in range(frames):
            self.clock.now += seconds / frames
            self.pressure.record_wait(turn)
        return self.pressure.is_high


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice(Clock())


def test_a_burst_is_no_overload(device: FakeDevice) -> None:
    assert not device.run(60, 0.1)
    assert not device.run(6.5, 100)
    assert not device.run(5, 0.1)
    assert not device.run(3, 100)


def test_long_waits_are_overload_until_they_have_been_short_for_a_while(device: FakeDevice) -> None:
    assert not device.run(60, 0.9)
    assert device.run(7.5, 1.1)
    assert device.pressure.share > HIGH_WATERMARK
    assert device.run(2, 0.9)  # not at once
    assert LOW_WATERMARK < device.pressure.share < HIGH_WATERMARK
    assert not device.run(6, 0.9)
    assert device.pressure.share < LOW_WATERMARK


def test_waits_around_the_limit_do_not_toggle_the_pressure(device: FakeDevice) -> None:
    device.run(60, 1.1)
    assert {device.run(0.5, turn) for _ in range(60) for turn in (0.9, 1.1)} == {True}


def test_a_device_without_work_is_under_no_pressure(device: FakeDevice) -> None:
    assert device.run(60, 5)
    device.depth = 0
    assert not device.pressure.is_high
    device.depth = 1
    assert not device.pressure.is_high
    assert not device.run(6.5, 5)
    assert device.run(1, 5)


def test_a_wait_says_nothing_about_the_time_before_it(device: FakeDevice) -> None:
    device.clock.now += 1000
    device.pressure.record_wait(3)
    assert not device.pressure.is_high
    assert device.pressure.share < 3 / TIME_CONSTANT


def test_a_limit_of_zero_means_no_pressure(device: FakeDevice) -> None:
    device.pressure = Pressure(0, lambda: 1, clock=device.clock)
    assert not device.run(1000, 1000)
