import pytest

from keywarp.experiments.adaptive import Point, accuracy_at_interval
from keywarp.experiments.timing import FrameTimes


@pytest.mark.parametrize(
    ("interval", "accuracy"), [(1, 1.0), (4 / 3, 0.9), (2, 0.8), (8 / 3, 0.7), (3, 0.8 - 0.2 * 2 / 3), (4, 0.6)]
)
def test_accuracy_between_intervals_goes_by_the_share_of_key_frames(interval: float, accuracy: float) -> None:
    points = [Point(1, 1, 1.0), Point(4, 4, 0.6), Point(2, 2, 0.8)]
    assert accuracy_at_interval(points, interval) == pytest.approx(accuracy)


@pytest.mark.parametrize("interval", [1, 2, 10, 100])
def test_speed_up_is_equation_7s(interval: int) -> None:
    """s = l / (1 + (l - 1) r) over evaluating every frame."""
    runtime = FrameTimes(key=0.05, propagated=0.01, backend="")
    ratio = runtime.propagated / runtime.key
    speed_up = runtime.frames_per_second(interval) / runtime.frames_per_second(1)
    assert runtime.frames_per_second(1) == pytest.approx(20)
    assert speed_up == pytest.approx(interval / (1 + (interval - 1) * ratio))
