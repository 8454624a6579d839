"""Propagated frames of several streams that run together: on a fake GPU, and with programs that wait for the test."""

import gc
import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Condition
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from keywarp.engines import BackendError, Engine, Executor, FixedInterval, StreamSession, gathering
from keywarp.engines import engine as engine_module
from keywarp.engines import programs as programs_module
from keywarp.engines.backends.interface import Tensor
from tests.engines.tensorrt.races import CheckedLock, RaceDriver
from tests.engines.tensorrt.test_frames_in_flight import CheckedBackend
from tests.engines.test_fusion import noise
from tests.tiny_bundle import tiny_bundle

SESSIONS, FRAMES, BATCH = 6, 7, 4
TIME = 60.0  # seconds until a test that hangs fails


def until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + TIME
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.001)


# -- streams -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [None, 2], ids=["", "a frame is wrong"])
def test_streams_whose_frames_run_together_have_the_results_of_each_alone_without_a_race(
    wrong: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first two runs end when the frames of four further streams are waiting, which then make a batch."""
    bundle = tiny_bundle(tmp_path / "tiny", motion_gain=0.02, flow=(0.3, -0.6))
    alone = Engine(bundle, "onnxruntime")
    frames = [noise(FRAMES + number, 64, 96) for number in range(SESSIONS)]
    expected = []
    for shown in frames:
        session = StreamSession(alone, FixedInterval(3))
        expected.append([session.process(frame).labels for frame in shown[:FRAMES]])

    driver, sizes = RaceDriver(), list[int]()
    gatherers: list[gathering.Gatherer] = []
    full = threading.Event()

    class Place(gathering.Place):
        def run(self, inputs: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
            sizes.append(len(inputs))
            if len(sizes) <= programs_module.PLACES:
                until(lambda: full.is_set() or len(gatherers[0]._waiting) >= BATCH)
                full.set()
            return super().run(inputs)

    class Gatherer(gathering.Gatherer):
        def __init__(self, places: Sequence[gathering.Place]) -> None:
            super().__init__(places)
            self._changed = Condition(CheckedLock(driver))  # type: ignore[arg-type]
            gatherers.append(self)

        @contextmanager
        def run(self, inputs: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
            with super().run(inputs) as outputs:
                driver.use(driver.host(), "a session", reads=[memory(value) for value in outputs.values()])
                yield outputs

    monkeypatch.setattr(programs_module, "Place", Place)
    monkeypatch.setattr(programs_module, "Gatherer", Gatherer)
    monkeypatch.setattr(engine_module, "open_backend", lambda *_, **__: CheckedBackend(driver))
    engine = Engine(bundle, lanes=SESSIONS, batch=BATCH)
    executor = Executor(SESSIONS, in_flight=engine.in_flight)
    executor._lock = CheckedLock(driver)  # type: ignore[assignment]
    sessions = [StreamSession(engine, FixedInterval(3)) for _ in range(SESSIONS)]
    if wrong is not None:
        spoil(engine, sessions[wrong], monkeypatch)
    futures = [[executor.submit(s, shown[n]) for s, shown in zip(sessions, frames, strict=True)] for n in range(FRAMES)]
    for index, row in enumerate(futures):
        for number, future in enumerate(row):
            if number == wrong and index == 1:
                with pytest.raises(BackendError, match=r"expects .*current of shape"):
                    future.result(TIME)
            elif number != wrong:
                np.testing.assert_array_equal(future.result(TIME).labels, expected[number][index])
    executor.close()
    engine.close()
    assert sizes[:2] == [1, 1]
    assert max(sizes) == BATCH
    assert not driver.races
    if wrong is None:  # otherwise the error's traceback holds programs
        gatherers.clear()
        gc.collect()
        assert not any((driver.streams, driver.events, driver.graphs, driver.pinned))


def spoil(engine: Engine, session: StreamSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the second frame of a session have a small image of a wrong shape."""
    original, process = engine._images, session.process
    mine, frames = threading.local(), list[Any]()

    def images(frame: Any, placement: Any) -> Any:
        found: Any = original(frame, placement)
        if getattr(mine, "wrong", False):
            found.seen = found.seen[:, :-1]
        return found

    def marked(frame: Any, *arguments: Any, **named: Any) -> Any:
        frames.append(frame)
        mine.wrong = len(frames) == 2
        try:
            return process(frame, *arguments, **named)
        finally:
            mine.wrong = False

    monkeypatch.setattr(engine, "_images", images)
    monkeypatch.setattr(
        StreamSession, "process", lambda self, *a, **n: marked(*a, **n) if self is session else PROCESS(self, *a, **n)
    )


PROCESS = StreamSession.process


def memory(tensor: Tensor) -> int:
    """Return the address of the memory that an array is part of."""
    assert isinstance(tensor, np.ndarray)
    while isinstance(tensor.base, np.ndarray):
        tensor = tensor.base
    return tensor.ctypes.data


# -- gathering ---------------------------------------------------------------------------------------------------------


class Held:
    """A program that doubles numbers, as soon as it may, in one array. A negative number is an error."""

    def __init__(self, frames: int, runs: list[list[int]]) -> None:
        self._frames, self._runs = frames, runs
        self._array = np.zeros((frames, 1), int)
        self.may = threading.Semaphore(0)

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = [int(np.asarray(value).item()) for value in inputs.values()]
        self._runs.append(values)
        assert len(values) == self._frames
        assert self.may.acquire(timeout=TIME)
        if min(values) < 0:
            raise BackendError(f"{min(values)} is negative")
        self._array[:] = 2 * np.array(values)[:, np.newaxis]
        return {"doubled": self._array}


class Scene:
    """A gatherer with one place, and threads that bring numbers."""

    def __init__(self, module: Any) -> None:
        self.runs: list[list[int]] = []
        self.single, self.pair, self.four = (Held(frames, self.runs) for frames in (1, 2, 4))
        batches = module.Batch(self.pair, 2), module.Batch(self.four, 4)
        self.gatherer = module.Gatherer([module.Place(self.single, batches)])
        self.reading: list[int] = []
        self.read = threading.Event()
        self.read.set()

    def bring(self, value: int) -> Future[int]:
        """Let a thread bring a number, and wait until it is the last that waits, or that runs."""

        future: Future[int] = Future()

        def work() -> None:
            try:
                with self.gatherer.run({"value": np.array([[value]])}) as outputs:
                    self.reading.append(value)
                    assert self.read.wait(TIME)
                    future.set_result(int(outputs["doubled"].item()))
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
                future.set_exception(error)

        # A planted mistake may leave it waiting for ever, and other threads than daemons would keep the process alive.
        threading.Thread(target=work, daemon=True).start()
        until(
            lambda: (
                any(value in run for run in list(self.runs))
                or any(frame.inputs["value"].item() == value for frame in list(self.gatherer._waiting))
            )
        )
        return future

    def allow(self, runs: int = 99) -> None:
        for program in (self.single, self.pair, self.four):
            program.may.release(runs)


def whoever_comes_while_it_is_busy_runs_together(module: Any) -> None:
    scene = Scene(module)
    futures = [scene.bring(value) for value in range(1, 9)]
    assert scene.runs == [[1]]
    scene.allow()
    assert [future.result(TIME) for future in futures] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert scene.runs == [[1], [2, 3, 4, 5], [6, 7, 8, 8]]


def a_wrong_frame_fails_alone(module: Any) -> None:
    scene = Scene(module)
    futures = [scene.bring(value) for value in (1, 2, -3, 4)]
    scene.allow()
    assert [futures[n].result(TIME) for n in (0, 1, 3)] == [2, 4, 8]
    with pytest.raises(BackendError, match="-3 is negative"):
        futures[2].result(TIME)
    assert scene.runs[:2] == [[1], [2, -3, 4, 4]]
    assert sorted(scene.runs[2:]) == [[-3], [2], [4]]
    assert scene.bring(5).result(TIME) == 10


def a_place_is_taken_until_its_results_are_read(module: Any) -> None:
    scene = Scene(module)
    future = scene.bring(1)
    scene.read.clear()
    scene.allow()
    until(lambda: scene.reading)
    assert not scene.gatherer._free
    scene.read.set()
    assert future.result(TIME) == 2
    until(lambda: scene.gatherer._free)


SCENES = (
    whoever_comes_while_it_is_busy_runs_together,
    a_wrong_frame_fails_alone,
    a_place_is_taken_until_its_results_are_read,
)


@pytest.mark.parametrize("scene", SCENES)
def test_frames_are_gathered(scene: Callable[[Any], None]) -> None:
    scene(gathering)


MUTANTS = {
    "the last come runs first": (
        "group.frames.append(self._waiting.popleft())",
        "group.frames.append(self._waiting.pop())",
    ),
    "all frames get the first one's result": ("array[n : n + 1]", "array[:1]"),
    "an error is that of all frames": (
        "frame.error = error if len(group.frames) == 1 else None",
        "[setattr(taken, 'error', error) for taken in group.frames]",
    ),
    "a place is free before its results are read": (
        "group.unread = len(group.frames)\n",
        "group.unread = len(group.frames)\n                self._free.append(group.place)\n",
    ),
    "frames of a batch that failed don't run again": (
        "if frame.outputs is None and frame.error is None:",
        "if not inputs:",
    ),
    "no batches": ("most = 1 if frame.alone else group.place.most", "most = 1"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_scenes_find_what_is_wrong(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = MUTANTS[mutant]
    source = inspect.getsource(gathering)
    assert source.count(old) == 1, f"the code has changed: {old}"
    mutated = ModuleType("mutated_gathering")
    monkeypatch.setitem(sys.modules, "mutated_gathering", mutated)
    exec(source.replace(old, new), mutated.__dict__)
    found = 0
    for scene in SCENES:
        try:
            scene(mutated)
        except (AssertionError, BackendError):
            found += 1
    assert found
