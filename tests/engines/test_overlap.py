"""Key frames whose features are computed between the frames after them."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines import (
    AVAILABLE,
    BackendError,
    BackendName,
    Engine,
    Executor,
    FixedInterval,
    FrameResult,
    KeyDecision,
    KeyReason,
    MotionVectors,
    StreamSession,
    slicing,
)
from keywarp.engines.engine import KeyPass
from keywarp.engines.motion import MotionName
from tests.engines.motion.videos import decoded, pan
from tests.tiny_bundle import tiny_bundle

PATIENCE = 60.0  # seconds
INTERVAL, OVERLAP, COUNT = 6, 3, 22
MOTIONS: tuple[MotionName, ...] = ("network", "flow-chained", "dis", "dis-chained-repaired", "codec", "none")
Frames = Sequence[NDArray[np.uint8]]


class Scripted:
    """A key schedule that says what it is told to, for one stream."""

    def __init__(self, reasons: dict[int, KeyReason | None]) -> None:
        self._reasons = reasons
        self._numbers = count()

    def for_stream(self) -> "Scripted":
        return self

    def decide(self, _: NDArray[np.uint8], forced: KeyReason | None = None) -> KeyDecision:
        number = next(self._numbers)
        return KeyDecision(forced or self._reasons.get(number))


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slicing, "SMALLEST", 1.0)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_engine(tmp_path)


@pytest.fixture(scope="module")
def video() -> list[tuple[NDArray[np.uint8], MotionVectors | None]]:
    return decoded(pan(COUNT, 3))


def open_engine(tmp_path: Path, motion: MotionName | None = None, backend: BackendName = "auto") -> Engine:
    bundle = tiny_bundle(tmp_path / "tiny", flow=(0.25, 0.0), motion_gain=0.002)
    return Engine(bundle, backend, "fp32", cache=tmp_path / "cache", motion=motion, lanes=2, slices=3)


def images(number: int = COUNT) -> Frames:
    return pan(number, 3)


def same(one: FrameResult, other: FrameResult) -> bool:
    return bool((one.labels == other.labels).mean() > 0.999)  # the order of fp32 sums changes their last bits


@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize("motion", MOTIONS)
def test_frames_are_propagated_from_the_key_frame_before_until_the_overlap_is_over(
    backend: BackendName, motion: MotionName, tmp_path: Path, video: list[tuple[NDArray[np.uint8], MotionVectors]]
) -> None:
    """The new key frame's motion is followed from itself on, through the frames that didn't use it."""
    engine = open_engine(tmp_path, motion, backend)
    session = StreamSession(engine, FixedInterval(INTERVAL), overlap=OVERLAP)
    found = [session.process(image, vectors=(vectors,)) for image, vectors in video]
    for start in range(0, COUNT, INTERVAL):
        expected, state = engine.key(video[start][0])
        if start == 0:
            assert same(found[0], expected)
        for number in range(start + 1, min(start + INTERVAL + OVERLAP, COUNT)):
            expected = engine.propagate(video[number][0], state, (video[number][1],))
            if number >= start + OVERLAP or start == 0:
                assert same(found[number], expected), (start, number)
                assert found[number].key_age == number - start
    assert [result.reason for result in found] == [KeyReason.START] + [None] * (COUNT - 1)
    first_uses = [result.index for result in found if result.overlapped]
    assert first_uses == [start + OVERLAP for start in range(INTERVAL, COUNT - OVERLAP, INTERVAL)]


def test_without_executor_and_with_it_results_are_the_same(engine: Engine) -> None:
    alone = StreamSession(engine, FixedInterval(INTERVAL), overlap=OVERLAP)
    expected = [alone.process(image) for image in images()]
    executor = Executor(lanes=2)
    sessions = [StreamSession(engine, FixedInterval(INTERVAL), overlap=OVERLAP) for _ in range(5)]
    futures = [[executor.submit(session, image) for session in sessions] for image in images()]
    for one, others in zip(expected, futures, strict=True):
        for other in others:
            result = other.result(PATIENCE)
            assert (result.index, result.key_age) == (one.index, one.key_age)
            assert same(result, one)
    executor.close()


def test_a_share_of_the_steps_follows_each_frame_of_the_overlap(engine: Engine) -> None:
    """The first four frames of an interval of eight, with an overlap of two."""
    session = StreamSession(engine, FixedInterval(8), overlap=2)
    owed: list[int] = []
    for image in images(12):
        session.process(image)
        owed.append(session.owed)
        assert session.useful == session.owed
        while session.owed:
            session.advance()
    assert engine.steps(images()[0]) == 3
    assert owed == [0] * 8 + [2, 1, 0, 0]


def test_an_eager_stream_uses_a_key_frame_as_soon_as_it_is_ready(engine: Engine) -> None:
    session = StreamSession(engine, FixedInterval(10), overlap=8, eager=True)
    ages = []
    for number, image in enumerate(images(15)):
        ages.append(session.process(image).key_age)
        if number == 12:
            while session.useful:
                session.advance()
    assert ages == [*range(13), 3, 4]


def test_an_eager_stream_computes_what_is_left_when_the_overlap_is_over(engine: Engine) -> None:
    session = StreamSession(engine, FixedInterval(4), overlap=2, eager=True)
    for image in images(6):
        session.process(image)
    assert session.owed == session.useful == 1
    assert session.process(images()[6]).key_age == 2
    assert session.owed == session.useful == 0


@pytest.mark.parametrize("how", ["gap", "size", "age", "interrupt", "cut"])
def test_what_cannot_be_propagated_blocks_and_discards_the_key_frame_that_is_computed(engine: Engine, how: str) -> None:
    session = StreamSession(
        engine, Scripted({4: KeyReason.INTERVAL, 5: KeyReason.CUT if how == "cut" else None}), max_age=20.0, overlap=3
    )
    for number, image in enumerate(images(5)):
        assert session.process(image, timestamp=float(number)).key_age == number
    assert session.owed == 1
    image = images()[5]
    if how == "interrupt":
        session.interrupt()
        assert session.owed == 0
    if how == "size":
        image = np.ascontiguousarray(image[:64])
    timestamp = 100.0 if how == "age" else 5.0
    result = session.process(image, timestamp=timestamp, gap=how == "gap")
    assert (result.kind, result.key_age) == ("key", 0)
    assert result.reason == {"interrupt": "gap"}.get(how, how)
    assert session.owed == session.useful == 0
    assert session.process(image, timestamp=timestamp + 1).key_age == 1


def test_after_an_error_of_a_step_the_frame_that_needs_the_key_frame_blocks(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = StreamSession(engine, FixedInterval(3), overlap=2)
    for image in images(4):
        session.process(image)

    def fail(*_: object) -> None:
        raise BackendError("the device is gone")

    monkeypatch.setattr(engine, "step", fail)
    session.advance()
    assert session.owed == session.useful == 0
    results = [session.process(image) for image in images(6)[4:]]
    assert [(result.key_age, result.reason) for result in results] == [(4, None), (0, "gap")]


def test_a_frame_may_be_changed_once_it_is_processed(engine: Engine) -> None:
    kept = StreamSession(engine, FixedInterval(2), overlap=1)
    reused, session = np.empty_like(images()[0]), StreamSession(engine, FixedInterval(2), overlap=1)
    for image in images(5):
        expected = kept.process(image)
        reused[:] = image
        found = session.process(reused)
        reused[:] = 0
        assert same(found, expected)


def test_steps_run_as_soon_as_a_result_is_handed_out_and_frames_of_others_go_between(engine: Engine) -> None:
    """The frame of another session waits for one step only, though more are owed."""
    executor, gate, began = Executor(), Event(), Event()
    session, other = StreamSession(engine, FixedInterval(2), overlap=1), StreamSession(engine, FixedInterval(100))
    step, order = engine.step, list[str]()

    def slow(*arguments: Any) -> Any:
        began.set()
        assert gate.wait(PATIENCE)
        order.append("step")
        return step(*arguments)

    for image in images(2):
        executor.submit(session, image).result(PATIENCE)
        executor.submit(other, image).result(PATIENCE)
    engine.step = slow  # type: ignore[method-assign, assignment]
    assert executor.submit(session, images()[2]).result(PATIENCE).key_age == 2
    assert began.wait(PATIENCE)
    frames = [executor.submit(other, images()[2]), executor.submit(session, images()[3])]
    for name, frame in zip(("other", "frame"), frames, strict=True):
        frame.add_done_callback(lambda _, name=name: order.append(name))  # type: ignore[misc]
    gate.set()
    result = frames[1].result(PATIENCE)
    executor.close()
    assert order == ["step", "other", "step", "step", "frame"]
    assert result.key_age == 1
    assert result.turn < result.queue, "it waited for its own key frame"
    assert result.overlapped > 0


def test_closing_the_executor_computes_what_queued_frames_need_and_nothing_else(engine: Engine) -> None:
    executor = Executor(lanes=2)
    sessions = [StreamSession(engine, FixedInterval(4), overlap=2) for _ in range(4)]
    futures = [executor.submit(session, image) for image in images(9) for session in sessions]
    executor.close()
    assert [future.result().key_age for future in futures[::4]] == [0, 1, 2, 3, 4, 5, 2, 3, 4]
    for session in sessions:
        image = images(10)[9]
        assert session.process(image).key_age in (0, 5), "a key frame that was discarded is made up for"


def test_without_slices_a_key_frame_is_computed_in_one_step(tmp_path: Path) -> None:
    engine = Engine(tiny_bundle(tmp_path / "tiny"), precision="fp32", cache=tmp_path / "cache")
    executor, session = Executor(), StreamSession(engine, FixedInterval(3), overlap=2)
    assert [executor.submit(session, image).result(PATIENCE).key_age for image in images(9)] == [
        0,
        1,
        2,
        3,
        4,
        2,
        3,
        4,
        2,
    ]
    executor.close()
    assert engine.steps(images()[0]) == 1


def test_an_overlap_is_not_negative(engine: Engine) -> None:
    with pytest.raises(ValueError, match="at least 0 frames, got -1"):
        StreamSession(engine, overlap=-1)


def test_copied_features_are_computed_in_steps_with_the_result(tmp_path: Path) -> None:
    engine = open_engine(tmp_path, "none")
    state = KeyPass(engine, images()[0])
    assert state.steps == 4, "the head's step, too"
    expected, _ = engine.key(images()[0])
    copied = state.finish().copied
    assert copied is not None
    assert same(copied, expected)
