"""Key frames whose features are computed beside the frames after them."""

import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
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
)
from keywarp.engines.engine import KeyState
from keywarp.engines.motion import MotionName
from keywarp.engines.session import KeyPass
from tests.engines.motion.videos import decoded, pan
from tests.tiny_bundle import tiny_bundle

PATIENCE = 60.0  # seconds
INTERVAL, OVERLAP, COUNT = 6, 3, 22
MOTIONS: tuple[MotionName, ...] = ("network", "flow-chained", "dis", "dis-chained-repaired", "codec", "none")
Frames = Sequence[NDArray[np.uint8]]


class Passes:
    """Holds key passes back, to run them when a test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[KeyPass, Future[tuple[KeyState, float]]]] = []

    def __call__(self, key_pass: KeyPass) -> Future[tuple[KeyState, float]]:
        future: Future[tuple[KeyState, float]] = Future()
        self.waiting.append((key_pass, future))
        return future

    def run(self) -> None:
        while self.waiting:
            key_pass, future = self.waiting.pop(0)
            if future.set_running_or_notify_cancel():
                future.set_result(key_pass(1))


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


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_engine(tmp_path)


@pytest.fixture(scope="module")
def video() -> list[tuple[NDArray[np.uint8], MotionVectors | None]]:
    return decoded(pan(COUNT, 3))


def open_engine(tmp_path: Path, motion: MotionName | None = None, backend: BackendName = "auto") -> Engine:
    bundle = tiny_bundle(tmp_path / "tiny", flow=(0.25, 0.0), motion_gain=0.002)
    return Engine(bundle, backend, "fp32", cache=tmp_path / "cache", motion=motion, lanes=2)


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


def test_an_eager_stream_uses_a_key_frame_as_soon_as_it_is_ready(engine: Engine) -> None:
    passes = Passes()
    session = StreamSession(engine, FixedInterval(10), overlap=8, eager=True)
    ages = []
    for number, image in enumerate(images(15)):
        ages.append(session.process(image, beside=passes).key_age)
        if number == 12:
            passes.run()
    assert ages == [*range(13), 3, 4]


def test_an_eager_stream_waits_when_the_overlap_is_over(engine: Engine) -> None:
    passes = Passes()
    session = StreamSession(engine, FixedInterval(4), overlap=2, eager=True)
    for image in images(6):
        assert session.awaited is None
        session.process(image, beside=passes)
    assert session.awaited is passes.waiting[0][1]
    passes.run()
    assert session.awaited is None
    assert session.process(images()[6], beside=passes).key_age == 2


@pytest.mark.parametrize("how", ["gap", "size", "age", "interrupt", "cut"])
def test_what_cannot_be_propagated_blocks_and_discards_the_key_frame_that_is_computed(engine: Engine, how: str) -> None:
    passes = Passes()

    session = StreamSession(
        engine, Scripted({4: KeyReason.INTERVAL, 5: KeyReason.CUT if how == "cut" else None}), max_age=20.0, overlap=3
    )
    for number, image in enumerate(images(5)):
        assert session.process(image, timestamp=float(number), beside=passes).key_age == number
    image = images()[5]
    if how == "interrupt":
        session.interrupt()
    if how == "size":
        image = np.ascontiguousarray(image[:64])
    timestamp = 100.0 if how == "age" else 5.0
    result = session.process(image, timestamp=timestamp, gap=how == "gap", beside=passes)
    assert (result.kind, result.key_age) == ("key", 0)
    assert result.reason == {"interrupt": "gap"}.get(how, how)
    assert passes.waiting[0][1].cancelled()
    assert session.process(image, timestamp=timestamp + 1, beside=passes).key_age == 1


def test_after_an_error_of_the_key_frame_that_is_computed_the_frame_that_needs_it_blocks(engine: Engine) -> None:
    passes = Passes()
    session = StreamSession(engine, FixedInterval(3), overlap=2)
    for image in images(4):
        session.process(image, beside=passes)
    passes.waiting.pop()[1].set_exception(BackendError("the device is gone"))
    results = [session.process(image, beside=passes) for image in images(6)[4:]]
    assert [(result.key_age, result.reason) for result in results] == [(4, None), (0, "gap")]


def test_a_frame_may_be_changed_once_it_is_processed(engine: Engine) -> None:
    passes, kept = Passes(), StreamSession(engine, FixedInterval(2), overlap=1)
    reused, session = np.empty_like(images()[0]), StreamSession(engine, FixedInterval(2), overlap=1)
    for image in images(5):
        expected = kept.process(image)
        reused[:] = image
        found = session.process(reused, beside=passes)
        reused[:] = 0
        passes.run()
        assert same(found, expected)


def test_frames_of_other_streams_do_not_wait_for_key_frames_that_overlap(engine: Engine) -> None:
    """They have a lane of their own, even while the stream of a key frame waits for it."""
    executor, gate, began = Executor(lanes=2), Event(), Event()
    sessions = [StreamSession(engine, FixedInterval(2), overlap=overlap) for overlap in (1, 3)]
    other = StreamSession(engine, FixedInterval(100))
    compute = engine.key

    def slow(frame: NDArray[np.uint8], lane: int | None = None) -> tuple[FrameResult, KeyState]:
        if began.is_set():
            assert gate.wait(PATIENCE)
        return compute(frame, lane)

    for image in images(2):
        for session in (*sessions, other):
            executor.submit(session, image).result(PATIENCE)
    engine.key = slow  # type: ignore[method-assign]
    began.set()
    for session in sessions:
        assert executor.submit(session, images()[2]).result(PATIENCE).key_age == 2
    waiting = executor.submit(sessions[0], images()[3])
    for image in images(9)[2:]:
        assert executor.submit(other, image).result(PATIENCE).kind == "propagated"
    assert not waiting.done()
    gate.set()
    result = waiting.result(PATIENCE)
    executor.close()
    assert result.key_age == 1
    assert result.turn < result.queue, "it waited for its own key frame"


def test_closing_the_executor_computes_what_queued_frames_need_and_nothing_else(engine: Engine) -> None:
    executor = Executor(lanes=2)
    sessions = [StreamSession(engine, FixedInterval(4), overlap=2) for _ in range(4)]
    futures = [executor.submit(session, image) for image in images(9) for session in sessions]
    executor.close()
    assert [future.result().key_age for future in futures[::4]] == [0, 1, 2, 3, 4, 5, 2, 3, 4]
    for session in sessions:
        image = images(10)[9]
        assert session.process(image).key_age in (0, 5), "a key frame that was discarded is made up for"


def test_overlapping_needs_lanes(tmp_path: Path) -> None:
    single = Engine(tiny_bundle(tmp_path / "tiny"), precision="fp32", cache=tmp_path / "cache")
    with pytest.raises(ValueError, match="at least 2 lanes"):
        StreamSession(single, overlap=1)
    with pytest.raises(ValueError, match="at least 0 frames, got -1"):
        StreamSession(single, overlap=-1)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_key_frames_that_overlap_have_a_lower_priority_than_frames(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, session = Executor(lanes=2), StreamSession(engine, FixedInterval(2), overlap=1)
    priorities: dict[str, set[int]] = {"key": set(), "propagate": set()}
    key, propagate = engine.key, engine.propagate

    def note(name: str) -> None:
        priorities[name].add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    def noted_key(*arguments: Any) -> tuple[FrameResult, KeyState]:
        note("key")
        return key(*arguments)

    def noted_propagate(*arguments: Any) -> FrameResult:
        note("propagate")
        return propagate(*arguments)

    executor.submit(session, images()[0]).result(PATIENCE)
    monkeypatch.setattr(engine, "key", noted_key)
    monkeypatch.setattr(engine, "propagate", noted_propagate)
    for image in images(6)[1:]:
        executor.submit(session, image).result(PATIENCE)
    executor.close()
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    assert priorities == {"key": {min(19, usual + 10)}, "propagate": {usual}}
