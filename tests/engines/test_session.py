"""`StreamSession` runs Algorithm 1 on every backend."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines import (
    AVAILABLE,
    AdaptiveInterval,
    BackendError,
    BackendName,
    Engine,
    FixedInterval,
    FrameKind,
    FrameOrderError,
    FrameResult,
    InvalidFrameError,
    KeyDecision,
    KeyReason,
    KeySchedule,
    StreamSession,
)
from tests.engines.scenes import scene
from tests.tiny_bundle import tiny_bundle

HEIGHT, WIDTH = 64, 96
RED, GREEN = 1, 2


@pytest.fixture(params=AVAILABLE)
def backend(request: pytest.FixtureRequest) -> BackendName:
    name: BackendName = request.param
    return name


@pytest.fixture
def engine(backend: BackendName, tmp_path: Path) -> Engine:
    return Engine(tiny_bundle(tmp_path / "tiny"), backend, "fp32", cache=tmp_path / "cache")


def frame(red_from: int = 48, red_to: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Return a dark frame with a red band of columns."""
    image = np.zeros((height, WIDTH, 3), np.uint8)
    image[:, red_from:red_to, 0] = 255
    return image


def noise(count: int, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> Iterator[NDArray[np.uint8]]:
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield generator.integers(0, 256, (height, width, 3), np.uint8)


def test_frames_between_key_frames_are_propagated(engine: Engine) -> None:
    session = StreamSession(engine, FixedInterval(3))
    results = [session.process(image) for image in noise(7)]
    assert [r.kind for r in results] == [FrameKind.KEY, FrameKind.PROPAGATED, FrameKind.PROPAGATED] * 2 + [
        FrameKind.KEY
    ]
    assert [r.key_age for r in results] == [0, 1, 2, 0, 1, 2, 0]
    assert [r.index for r in results] == list(range(7))


def test_the_bundles_interval_is_the_default(engine: Engine) -> None:
    session = StreamSession(engine)
    kinds = [session.process(image).kind for image in noise(21)]
    assert [i for i, kind in enumerate(kinds) if kind is FrameKind.KEY] == [0, 10, 20]


def test_labels_are_those_that_the_networks_score_highest(engine: Engine) -> None:
    labels = StreamSession(engine).process(frame()).labels
    assert labels.shape == (HEIGHT, WIDTH)
    assert labels.dtype == np.uint8
    assert (labels[:, :40] == 0).all()
    assert (labels[:, 56:] == RED).all()


def test_zero_flow_and_scale_one_repeat_the_key_frames_result_exactly(engine: Engine) -> None:
    session = StreamSession(engine, FixedInterval(10))
    images = noise(4)
    key = session.process(next(images)).labels
    for image in images:
        np.testing.assert_array_equal(session.process(image).labels, key)


def test_flow_moves_the_key_frames_result(backend: BackendName, tmp_path: Path) -> None:
    """A flow of (1, 0) cells samples the key frame one cell to the right, so content moves 16 pixels left."""
    moving = Engine(tiny_bundle(tmp_path / "moving", flow=(1.0, 0.0)), backend, "fp32", cache=tmp_path / "cache")
    session = StreamSession(moving, FixedInterval(10))
    key = session.process(frame(48, 64)).labels
    moved = session.process(frame(48, 64)).labels
    np.testing.assert_array_equal(moved[:, 16:64], key[:, 32:80])


def test_a_gap_in_frame_indices_forces_a_key_frame(engine: Engine) -> None:
    session = StreamSession(engine, FixedInterval(10))
    results = [session.process(image, index) for image, index in zip(noise(4), (0, 1, 3, 4), strict=True)]
    assert [r.kind.value for r in results] == ["key", "propagated", "key", "propagated"]
    assert results[-1].key_age == 1


def test_a_gap_that_the_source_reports_forces_a_key_frame(engine: Engine) -> None:
    session = StreamSession(engine, FixedInterval(10))
    found = [session.process(scene(0), gap=number == 2) for number in range(4)]
    assert [result.reason for result in found] == [KeyReason.START, None, KeyReason.GAP, None]


def test_skipped_frames_are_no_gap_and_do_not_use_up_the_interval(engine: Engine) -> None:
    session = StreamSession(engine, FixedInterval(3))
    skips = (0, 2, 9, 1, 0, 30, 4)
    results = [session.process(image, skipped=skipped) for image, skipped in zip(noise(7), skips, strict=True)]
    assert [(r.index, r.reason, r.key_age) for r in results] == [
        (0, "start", 0),
        (3, None, 3),
        (13, None, 13),
        (15, "interval", 0),
        (16, None, 1),
        (47, None, 32),
        (52, "interval", 0),
    ]
    assert session.process(frame(), 54).reason is KeyReason.GAP  # frame 53 is missing
    assert session.process(frame(), 57, skipped=1).reason is KeyReason.GAP  # one more frame is missing


@pytest.mark.parametrize("schedule", [FixedInterval(100), AdaptiveInterval(threshold=1.0, maximum=100)])
def test_a_key_frame_older_than_the_limit_makes_the_next_frame_a_key_frame(
    engine: Engine, schedule: KeySchedule
) -> None:
    session = StreamSession(engine, schedule, max_age=1.0)
    times = (10.0, 10.5, 11.0, 11.1, 12.0, 12.2, 20.0)
    results = [session.process(scene(0), timestamp=time) for time in times]
    assert [r.reason for r in results] == ["start", None, None, "age", None, "age", "age"]
    assert [r.key_age_seconds for r in results] == [0.0, 0.5, 1.0, 0.0, 0.9, 0.0, 0.0]


def test_without_a_limit_a_key_frame_may_be_of_any_age(engine: Engine) -> None:
    session = StreamSession(engine, FixedInterval(100))
    results = [session.process(frame(), timestamp=time) for time in (0.0, 3600.0, 86400.0)]
    assert [r.kind.value for r in results] == ["key", "propagated", "propagated"]
    assert [r.key_age_seconds for r in results] == [0.0, 3600.0, 86400.0]


def test_sums_of_timestamps_do_not_exceed_a_limit_that_they_equal(engine: Engine) -> None:
    session = StreamSession(engine, FixedInterval(100), max_age=0.3)
    results = [session.process(frame(), timestamp=0.1 * number) for number in range(9)]
    assert [r.index for r in results if r.reason] == [0, 4, 8]


def test_a_forced_key_frame_restarts_the_age(engine: Engine) -> None:
    session = StreamSession(engine, FixedInterval(100), max_age=1.0)
    session.process(frame(), timestamp=0.0)
    session.interrupt()
    results = [session.process(frame(), timestamp=time) for time in (0.9, 1.8, 2.0)]
    assert [r.reason for r in results] == ["gap", None, "age"]


@pytest.mark.parametrize("max_age", [0.0, -1.0, float("nan")])
def test_a_limit_of_the_age_that_is_not_positive_is_refused(engine: Engine, max_age: float) -> None:
    with pytest.raises(ValueError, match="above 0 seconds"):
        StreamSession(engine, max_age=max_age)


def test_a_new_frame_size_forces_a_key_frame(engine: Engine) -> None:
    session = StreamSession(engine, FixedInterval(10))
    results = [session.process(frame(height=height)) for height in (64, 64, 128, 128, 64)]
    assert [r.kind.value for r in results] == ["key", "propagated", "key", "propagated", "key"]
    assert [r.height for r in results] == [64, 64, 128, 128, 64]


def test_an_interruption_forces_a_key_frame(engine: Engine) -> None:
    session = StreamSession(engine, FixedInterval(10))
    session.process(frame())
    session.interrupt()
    assert session.process(frame()).kind is FrameKind.KEY
    assert session.process(frame()).kind is FrameKind.PROPAGATED


@pytest.mark.parametrize("index", [0, 4, 5])
def test_frames_out_of_order_are_refused_and_change_nothing(engine: Engine, index: int) -> None:
    session = StreamSession(engine, FixedInterval(10))
    session.process(frame(), 5)
    with pytest.raises(FrameOrderError, match=f"frame {index} came after frame 5"):
        session.process(frame(), index)
    assert session.process(frame(), 6).kind is FrameKind.PROPAGATED


def test_an_array_that_is_not_a_frame_is_refused_and_changes_nothing(engine: Engine) -> None:
    session = StreamSession(engine, FixedInterval(10))
    session.process(frame())
    with pytest.raises(InvalidFrameError):
        session.process(np.zeros((4, 4), np.uint8))
    assert session.process(frame()).key_age == 1


def test_streams_that_share_an_engine_do_not_mix(engine: Engine) -> None:
    one, two = StreamSession(engine, FixedInterval(10)), StreamSession(engine, FixedInterval(10))
    expected = one.process(frame(0, 48)).labels
    other = two.process(frame(48, 96)).labels
    assert (expected != other).any()
    np.testing.assert_array_equal(one.process(frame()).labels, expected)
    np.testing.assert_array_equal(two.process(frame()).labels, other)


def test_frames_of_odd_sizes_are_resized_and_propagated(backend: BackendName, tmp_path: Path) -> None:
    """The sides of the networks' input are rounded to multiples of 16."""
    engine = Engine(tiny_bundle(tmp_path / "odd", short_side=80), backend, "fp32", cache=tmp_path / "cache")
    session = StreamSession(engine, FixedInterval(2))
    for image in noise(2, height=61, width=97):
        result = session.process(image)
        assert (result.height, result.width) == (61, 97)
        assert result.labels.shape == (80, 128)


def test_after_a_failure_the_next_frame_becomes_a_key_frame(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    session = StreamSession(engine, FixedInterval(10))
    session.process(frame())

    def fail(*_: object) -> None:
        raise BackendError("the device is gone")

    with monkeypatch.context() as broken:
        broken.setattr(engine, "propagate", fail)
        with pytest.raises(BackendError, match="gone"):
            session.process(frame())
    assert session.process(frame()).kind is FrameKind.KEY
    assert session.process(frame()).kind is FrameKind.PROPAGATED


def test_every_key_frame_says_why_it_is_one(engine: Engine) -> None:
    session = StreamSession(engine, FixedInterval(2))
    results = [session.process(frame(), index) for index in (0, 1, 2, 4, 5)]
    results.append(session.process(frame(height=80)))
    session.interrupt()
    results.append(session.process(frame(height=80)))
    assert [r.reason for r in results] == ["start", None, "interval", "gap", None, "size", "gap"]
    assert {r.change for r in results} == {None}


def test_an_adaptive_schedule_sees_the_frames_and_results_carry_its_change(engine: Engine) -> None:
    session = StreamSession(engine, AdaptiveInterval(threshold=0.2, maximum=4))
    results = [session.process(scene(seed)) for seed in (0, 0, 1, 1, 1, 1, 1)]
    assert [r.reason for r in results] == ["start", None, "cut", None, None, None, "interval"]
    assert [r.key_age for r in results] == [0, 1, 0, 1, 2, 3, 0]
    assert [r.change for r in results[:2]] == [None, 0.0]
    assert (results[2].change or 0) > 0.45


def test_after_a_failure_an_adaptive_schedule_starts_from_the_next_key_frame(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BackendError("the device is gone")

    def process(seed: int) -> FrameResult:
        return session.process(scene(seed))

    session = StreamSession(engine, AdaptiveInterval(threshold=0.2, maximum=3))
    process(0)
    for method in ("propagate", "key"):  # first a propagated frame fails, then the key frame of another scene
        with monkeypatch.context() as broken:
            broken.setattr(engine, method, fail)
            with pytest.raises(BackendError):
                process(0 if method == "propagate" else 1)
    results = [process(2) for _ in range(4)]
    assert [r.reason for r in results] == ["gap", None, None, "interval"]
    assert [r.change for r in results] == [None, 0.0, 0.0, None]


def test_a_custom_schedule_is_asked_and_cannot_prevent_a_forced_key_frame(engine: Engine) -> None:
    class Never:
        def __init__(self) -> None:
            self.forced: list[KeyReason | None] = []

        def for_stream(self) -> "Never":
            return self

        def decide(self, frame: NDArray[np.uint8], forced: KeyReason | None = None) -> KeyDecision:  # noqa: ARG002
            self.forced.append(forced)
            return KeyDecision(None)

    schedule = Never()
    session = StreamSession(engine, schedule)
    results = [session.process(frame(), index) for index in (0, 1, 5)]
    assert [r.reason for r in results] == schedule.forced == ["start", None, "gap"]
    assert [r.kind for r in results] == ["key", "propagated", "key"]
