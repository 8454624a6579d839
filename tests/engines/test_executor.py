"""The executor: which frames run, in what order, and on which share of the device."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any, cast

import numpy as np
import pytest

from keywarp.engines import (
    AVAILABLE,
    BackendName,
    Engine,
    Executor,
    FixedInterval,
    FrameOrderError,
    FrameResult,
    StreamSession,
    load_bundle,
)
from keywarp.engines.processor import usual_lanes
from tests.tiny_bundle import tiny_bundle

FRAME = np.full((64, 96, 3), 200, np.uint8)
PATIENCE = 60.0  # seconds


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tiny_bundle(tmp_path / "tiny"), precision="fp32", cache=tmp_path / "cache")


class BlockedSession(StreamSession):
    """A session that occupies its lane until a gate is opened."""

    def __init__(self, engine: Engine, gate: Event) -> None:
        super().__init__(engine)
        self._gate = gate

    def process(self, *place: Any, **more: Any) -> FrameResult:
        assert self._gate.wait(PATIENCE)
        return super().process(*place, **more)


class MeetingSession:
    """A session whose frames wait for each other, and which notes the lanes that they run on."""

    owed = useful = 0

    def __init__(self, engine: Engine, meeting: Barrier | None = None) -> None:
        self._session = StreamSession(engine)
        self._meeting = meeting
        self.lanes: list[int | None] = []

    def process(self, *place: Any, lane: int | None, **more: Any) -> FrameResult:
        self.lanes.append(lane)
        if self._meeting:
            self._meeting.wait(PATIENCE)
        return self._session.process(*place, lane=lane, **more)


def submit(executor: Executor, session: MeetingSession) -> Future[FrameResult]:
    return executor.submit(cast("StreamSession", session), FRAME)


# -- one lane ----------------------------------------------------------------------------------------------------------


def test_the_executor_runs_in_order_and_counts_its_queue(engine: Engine) -> None:
    executor, session, gate = Executor(), StreamSession(engine, FixedInterval(4)), Event()
    blocker = executor.submit(BlockedSession(engine, gate), FRAME)
    futures = [executor.submit(session, FRAME) for _ in range(8)]
    assert executor.depth == 1 + 8
    gate.set()
    results = [future.result() for future in futures]
    executor.close()
    assert blocker.done()
    assert [result.index for result in results] == list(range(8))
    *before, last = results
    assert last.queue > sum(result.inference for result in before)  # all were queued before the gate was opened
    assert executor.depth == 0


def test_turn_is_the_time_that_a_session_waits_for_others_and_not_for_itself(engine: Engine) -> None:
    executor, one, other, gate = Executor(), StreamSession(engine), StreamSession(engine), Event()
    executor.submit(BlockedSession(engine, gate), FRAME)
    futures = [executor.submit(session, FRAME) for session in (one, one, one, other)]
    gate.set()
    first, second, third, last = (future.result() for future in futures)
    executor.close()
    assert first.turn == first.queue
    assert second.queue > second.turn < second.queue - second.inference
    assert third.queue > third.turn < third.queue - third.inference
    assert last.turn == last.queue
    assert last.turn > sum(result.inference for result in (first, second, third))


def test_an_error_reaches_only_the_future_of_its_frame(engine: Engine) -> None:
    executor, good, bad = Executor(), StreamSession(engine), StreamSession(engine)
    executor.submit(bad, FRAME, 7)
    wrong, right = executor.submit(bad, FRAME, 3), executor.submit(good, FRAME)
    with pytest.raises(FrameOrderError):
        wrong.result()
    assert right.result().index == 0
    executor.close()


def test_closing_the_executor_finishes_the_queued_frames(engine: Engine) -> None:
    executor, session = Executor(), StreamSession(engine)
    futures = [executor.submit(session, FRAME) for _ in range(5)]
    executor.close()
    assert [f.result().index for f in futures] == list(range(5))
    with pytest.raises(RuntimeError):
        executor.submit(session, FRAME)


def test_a_canceled_frame_does_not_run_and_the_ones_after_it_do(engine: Engine) -> None:
    executor, session, gate = Executor(), StreamSession(engine), Event()
    executor.submit(BlockedSession(engine, gate), FRAME)
    first, canceled, last = (executor.submit(session, FRAME) for _ in range(3))
    assert canceled.cancel()
    assert executor.depth == 3
    gate.set()
    assert (first.result().index, last.result().index) == (0, 1)
    executor.close()
    assert executor.depth == 0


# -- several lanes -----------------------------------------------------------------------------------------------------


def test_frames_of_several_sessions_run_at_the_same_time_each_on_its_lane(engine: Engine) -> None:
    executor, gate = Executor(lanes=3), Event()
    blocked = [executor.submit(BlockedSession(engine, gate), FRAME) for _ in range(3)]
    meeting = Barrier(3)
    sessions = [MeetingSession(engine, meeting) for _ in range(3)]
    futures = [submit(executor, session) for session in sessions]
    gate.set()
    results = [future.result(PATIENCE) for future in futures]
    executor.close()
    assert all(future.done() for future in blocked)
    assert sorted(cast("int", session.lanes[0]) for session in sessions) == [0, 1, 2]
    assert [result.share for result in results] == [pytest.approx(1 / 3)] * 3


def test_frames_of_one_session_never_run_at_the_same_time(engine: Engine) -> None:
    executor, session, gate = Executor(lanes=2), StreamSession(engine, FixedInterval(3)), Event()
    executor.submit(BlockedSession(engine, gate), FRAME)
    futures = [executor.submit(session, FRAME) for _ in range(12)]
    assert [future.result(PATIENCE).index for future in futures] == list(range(12)), "beside the one that is blocked"
    gate.set()
    executor.close()


def test_the_only_session_with_frames_gets_the_whole_device(engine: Engine) -> None:
    executor, gate = Executor(lanes=2), Event()
    alone, other = MeetingSession(engine), MeetingSession(engine)
    for _ in range(3):
        assert submit(executor, alone).result(PATIENCE).share == 1
    executor.submit(BlockedSession(engine, gate), FRAME)
    assert submit(executor, other).result(PATIENCE).share == pytest.approx(0.5)
    gate.set()
    executor.close()
    assert alone.lanes == [None] * 3
    assert other.lanes != [None]


@pytest.mark.parametrize("backend", AVAILABLE)
def test_results_do_not_depend_on_the_lane(backend: BackendName, tmp_path: Path) -> None:
    """A key frame's features can also be propagated on another lane."""
    bundle = tiny_bundle(tmp_path / "tiny")
    engine = Engine(bundle, backend, "fp32", cache=tmp_path, lanes=3)
    frames = np.random.default_rng(0).integers(0, 256, (9, 64, 96, 3), np.uint8)
    whole, shared = StreamSession(engine, FixedInterval(3)), StreamSession(engine, FixedInterval(3))
    lanes = [0, 1, None, 2, 2, 0, None, 1, 0]
    expected = [whole.process(frame) for frame in frames]
    found = [shared.process(frame, lane=lane) for frame, lane in zip(frames, lanes, strict=True)]
    for one, other in zip(expected, found, strict=True):
        assert (one.labels == other.labels).mean() > 0.999, "the order of fp32 sums changes their last bits"


def test_many_sessions_at_once_give_what_each_gives_alone(bundle_path: Path, tmp_path: Path) -> None:
    engine = Engine(load_bundle(bundle_path), precision="fp32", cache=tmp_path, lanes=2)
    executor = Executor(lanes=2)
    clips = np.random.default_rng(1).integers(0, 256, (6, 10, 64, 96, 3), np.uint8)

    def stream(clip: Any) -> list[FrameResult]:
        session = StreamSession(engine, FixedInterval(4))
        return [future.result(PATIENCE) for future in [executor.submit(session, frame) for frame in clip]]

    with ThreadPoolExecutor(len(clips)) as pool:
        found = [*pool.map(stream, clips)]
    executor.close()
    for clip, results in zip(clips, found, strict=True):
        session = StreamSession(engine, FixedInterval(4))
        for frame, result in zip(clip, results, strict=True):
            expected = session.process(frame)
            assert (result.index, result.kind) == (expected.index, expected.kind)
            assert (result.labels == expected.labels).mean() > 0.999


@pytest.mark.parametrize(("cores", "lanes"), [(1, 1), (2, 2), (4, 4), (8, 4), (64, 4)])
def test_lanes_by_the_number_of_cores(cores: int, lanes: int) -> None:
    assert usual_lanes(cores) == lanes


@pytest.mark.skipif("openvino" not in AVAILABLE, reason="OpenVINO isn't installed")
def test_lanes_of_openvino_share_the_cores_and_are_not_pinned_to_the_same_one(tmp_path: Path) -> None:
    """Its streams would be: the first thread of each network runs on the first core."""
    engine = Engine(tiny_bundle(tmp_path / "tiny"), "openvino", "fp32", threads=4, cache=tmp_path, lanes=2)
    engine.prepare(64, 96)
    compiled = engine._compiled((64, 96))
    for lane in compiled.lanes:
        model = cast("Any", lane.key[0].program)._request.get_compiled_model()
        properties = ("NUM_STREAMS", "INFERENCE_NUM_THREADS", "ENABLE_CPU_PINNING")
        assert [model.get_property(name) for name in properties] == [1, 2, False]
