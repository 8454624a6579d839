"""The adaptive schedule on streams of known content."""

from collections.abc import Iterable
from itertools import chain, islice

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines import AdaptiveInterval, KeyDecision, KeyReason, KeySchedule
from tests.engines.scenes import lighter, pan, scene, still

Frames = Iterable[NDArray[np.uint8]]


def decide_all(schedule: KeySchedule, frames: Frames) -> list[KeyDecision]:
    stream = schedule.for_stream()
    return [stream.decide(frame) for frame in frames]


def keys(decisions: list[KeyDecision]) -> dict[int, str]:
    return {index: decision.reason.value for index, decision in enumerate(decisions) if decision.reason}


def traffic(count: int, seed: int = 0) -> Frames:
    """Yield shots of 40 to 120 frames, some still and noisy, some panned at various speeds."""
    random = np.random.default_rng(seed)

    def shots() -> Iterable[Frames]:
        for shot in range(count):
            length, speed = int(random.integers(40, 120)), float(random.choice([0, 0.5, 2, 6]))
            yield pan(length, speed, seed + shot) if speed else still(length, seed + shot, noise=6)

    return islice(chain.from_iterable(shots()), count)


# -- a fixed threshold -------------------------------------------------------------------------------------------------


def test_where_nothing_changes_only_the_maximum_makes_key_frames() -> None:
    decisions = decide_all(AdaptiveInterval(threshold=0.1, maximum=12), still(30, noise=4))
    assert keys(decisions) == {0: "start", 12: "interval", 24: "interval"}
    assert [p.change is None for p in decisions[:2]] == [True, False]


def test_a_cut_makes_a_key_frame_at_once_whatever_the_threshold_and_minimum() -> None:
    frames = chain(still(7, 0), still(1, 1), still(8, 2))
    decisions = decide_all(AdaptiveInterval(threshold=1.0, minimum=10, maximum=30), frames)
    assert keys(decisions) == {0: "start", 7: "cut", 8: "cut"}
    assert (decisions[7].change or 0) > 0.45


def test_a_cut_is_detected_even_when_the_key_frame_is_long_out_of_view() -> None:
    frames = chain(pan(25, speed=8), still(5, 1))
    assert keys(decide_all(AdaptiveInterval(threshold=1.0, maximum=40), frames)) == {0: "start", 25: "cut"}


def test_a_fast_pan_is_not_a_cut() -> None:
    decisions = decide_all(AdaptiveInterval(threshold=0.3, maximum=40), pan(60, speed=8))
    assert set(keys(decisions).values()) == {"start", "change"}


def test_the_faster_content_changes_the_more_key_frames_there_are() -> None:
    counts = [len(keys(decide_all(AdaptiveInterval(threshold=0.15), pan(90, speed)))) for speed in (1, 3, 9)]
    assert counts[0] < counts[1] < counts[2]


def test_a_frame_is_a_key_frame_exactly_when_the_change_is_above_the_threshold() -> None:
    decisions = decide_all(AdaptiveInterval(threshold=0.15), pan(60, speed=3))
    assert len(keys(decisions)) > 3
    for decision in decisions[1:]:
        assert decision.change is not None
        assert (decision.change > 0.15) == decision.is_key


def test_the_minimum_delays_key_frames() -> None:
    decisions = keys(decide_all(AdaptiveInterval(threshold=0.01, minimum=4), pan(21, speed=4)))
    assert list(decisions) == [0, 4, 8, 12, 16, 20]


def test_flickering_light_makes_no_key_frames() -> None:
    dim = lighter(scene(), 0.7)
    frames = [lighter(dim, 1 + 0.25 * (index % 2)) for index in range(20)]
    assert keys(decide_all(AdaptiveInterval(threshold=0.05), frames)) == {0: "start"}


def test_interval_one_makes_every_frame_a_key_frame() -> None:
    for schedule in (AdaptiveInterval(threshold=1.0, maximum=1), AdaptiveInterval(target=1)):
        assert all(p.is_key for p in decide_all(schedule, still(20)))


# -- forced key frames -------------------------------------------------------------------------------------------------


def test_change_is_measured_from_a_forced_key_frame_on() -> None:
    stream = AdaptiveInterval(threshold=0.2, maximum=10).for_stream()
    assert stream.decide(scene(0)).reason is KeyReason.START
    assert stream.decide(scene(1), forced=KeyReason.GAP) == KeyDecision(KeyReason.GAP)
    assert [stream.decide(scene(1)) for _ in range(9)] == [KeyDecision(None, 0.0)] * 9
    assert stream.decide(scene(1)).reason is KeyReason.INTERVAL


def test_a_new_size_is_not_a_cut() -> None:
    frames = [scene(), scene(), scene(height=200), scene(height=200)]
    assert keys(decide_all(AdaptiveInterval(threshold=0.2), frames)) == {0: "start", 2: "size"}


def test_streams_that_share_a_schedule_do_not_mix() -> None:
    schedule = AdaptiveInterval(threshold=0.2)
    one, two = schedule.for_stream(), schedule.for_stream()
    for _ in range(5):
        one.decide(scene(0)), two.decide(scene(1))
    assert not one.decide(scene(0)).is_key
    assert two.decide(scene(0)).reason is KeyReason.CUT


# -- a target ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [4, 10, 12.5])
def test_the_target_is_the_mean_interval_of_a_long_stream(target: float) -> None:
    decisions = decide_all(AdaptiveInterval(target=target, maximum=40), traffic(2000))
    assert 2000 / len(keys(decisions)) == pytest.approx(target, rel=0.07)


@pytest.mark.parametrize("noise", [0, 10, 40])
def test_noise_alone_never_costs_more_than_the_target(noise: float) -> None:
    count = len(keys(decide_all(AdaptiveInterval(target=10), still(600, noise=noise))))
    assert 600 / 30 <= count <= 600 / 10 + 8


def test_motion_after_a_quiet_time_costs_a_bounded_number_of_extra_key_frames() -> None:
    decisions = decide_all(AdaptiveInterval(target=10), chain(still(400), pan(200, speed=6)))
    spent = [index for index in keys(decisions) if index >= 400]
    assert len(spent) <= 200 / 10 + 20  # ln(1.0 / 0.01) / 0.25 at most
    assert len([index for index in spent if index >= 500]) <= 14


def test_most_key_frames_are_where_the_motion_is() -> None:
    quiet_and_busy = chain.from_iterable(chain(still(60, shot, noise=3), pan(60, 5, shot)) for shot in range(6))
    decisions = keys(decide_all(AdaptiveInterval(target=10), quiet_and_busy))
    busy = [index for index in decisions if index % 120 >= 60]
    assert len(busy) > 3 * (len(decisions) - len(busy))


def test_equal_streams_have_equal_key_frames() -> None:
    schedule = AdaptiveInterval(target=10)
    assert decide_all(schedule, traffic(300)) == decide_all(schedule, traffic(300))


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either"),
        ({"target": 10, "threshold": 0.1}, "either"),
        ({"target": 31}, "the target 31 isn't between 1 and 30"),
        ({"target": 3, "minimum": 4}, "the target 3 isn't between 4 and 30"),
        ({"target": 0.5}, "the target 0.5"),
        ({"threshold": 0.1, "minimum": 0}, "1 <= minimum <= maximum, got 0 and 30"),
        ({"threshold": 0.1, "maximum": 0}, "1 <= minimum"),
        ({"threshold": 0.0}, "above 0 and at most 1, got 0"),
        ({"threshold": 1.5}, "got 1.5"),
        ({"threshold": 0.1, "cut": 0}, "got 0"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaptiveInterval(**options)  # type: ignore[arg-type]
