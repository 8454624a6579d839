"""Frames in flight on a fake GPU: the real engine and executor, with a checker of who may use which memory when."""

import gc
import inspect
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from keywarp.engines import BackendError, Engine, Executor, FixedInterval, StreamSession
from keywarp.engines import engine as engine_module
from keywarp.engines.backends.interface import Tensor
from keywarp.engines.backends.tensorrt import program as program_module
from keywarp.engines.backends.tensorrt.device_memory import DeviceMemory
from keywarp.engines.backends.warping import simplify
from keywarp.engines.executor import SharedTime
from keywarp.engines.fusion import CURRENT, KEY, GraphStyle, fuse_key, fuse_propagate
from tests.engines.tensorrt.fake_driver import FakeDriver, HostExecutable
from tests.engines.tensorrt.races import CheckedExecutable, CheckedLock, CheckedReturns, RaceDriver, RaceError
from tests.engines.test_fusion import noise
from tests.tiny_bundle import tiny_bundle

SESSIONS, LANES, FRAMES = 4, 3, 7


class CheckedBackend:
    """The TensorRT backend without TensorRT, whose uses of memory are checked."""

    name, device, precision, reason = "tensorrt", "a fake GPU", "fp32", "a test"
    style = GraphStyle()
    in_flight = True
    frames = None

    def __init__(self, driver: RaceDriver, programs: Any = program_module) -> None:
        self.driver = driver
        self.memory = DeviceMemory(driver)
        self.memory._lock = CheckedLock(driver)  # type: ignore[assignment]
        self.memory._returned = CheckedReturns(driver)

        class Program(programs.TensorRTProgram):  # type: ignore[misc]
            def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
                return read(driver, super().run(inputs))

        self._program = Program

    def compile(self, model: onnx.ModelProto, resident: frozenset[str] = frozenset()) -> Any:
        return self.compile_lanes(model, resident, 1)[0]

    def compile_lanes(
        self, model: onnx.ModelProto, resident: frozenset[str] = frozenset(), lanes: int = 2, slots: int = 1
    ) -> tuple[Any, ...]:
        place = self.driver, self.memory, model.graph.name
        graph = simplify(model)
        executables = [CheckedExecutable(graph, self.driver) for _ in range(lanes)]
        return tuple(self._program(executable, resident, *place, slots, replays=True) for executable in executables)


def read(driver: RaceDriver, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Read a program's outputs as a postprocessor does."""
    arrays = [tensor.ctypes.data for tensor in tensors.values() if isinstance(tensor, np.ndarray)]
    driver.use(driver.host(), "the host", reads=arrays)
    return tensors


def serve(
    bundle: Any, driver: RaceDriver, monkeypatch: pytest.MonkeyPatch, programs: Any = program_module
) -> list[list[NDArray[Any]]]:
    """Return the labels of some sessions on some lanes, each with its own frames."""
    monkeypatch.setattr(engine_module, "open_backend", lambda *_, **__: CheckedBackend(driver, programs))
    engine = Engine(bundle, lanes=LANES)
    executor = Executor(LANES, in_flight=engine.in_flight)
    executor._lock = CheckedLock(driver)  # type: ignore[assignment]
    sessions = [StreamSession(engine, FixedInterval(3)) for _ in range(SESSIONS)]
    frames = [noise(FRAMES + number, 64, 96) for number in range(SESSIONS)]
    futures = [
        [executor.submit(session, frames[number][index]) for number, session in enumerate(sessions)]
        for index in range(FRAMES)
    ]
    results = [[future.result() for future in row] for row in futures]
    executor.close()
    engine.close()
    return [[row[number].labels for row in results] for number in range(SESSIONS)]


def chain(bundle: Any, driver: RaceDriver, programs: Any = program_module) -> list[NDArray[Any]]:
    """Return labels of frames whose key features nobody waits for, and which are dropped while they are in use."""
    backend = CheckedBackend(driver, programs)
    key, propagate = fuse_key(bundle, 64, 96), fuse_propagate(bundle, 64, 96)
    model = onnx.ModelProto()
    model.CopyFrom(key.model)
    del model.graph.output[:]
    model.graph.output.extend(output for output in key.model.graph.output if output.name in key.resident)
    makers = [backend.compile(model, key.resident) for _ in range(2)]
    [reader] = backend.compile_lanes(propagate.model, lanes=1, slots=4)
    frames, small = noise(6, 64, 96), noise(6, 32, 48)
    found: list[NDArray[Any]] = []
    flights: list[Any] = []
    for number in range(6):
        maker = makers[number % 2]
        features = maker.submit({"frame": frames[number : number + 1]}).collect()["features"]
        flights.append(reader.submit({CURRENT: small[number : number + 1], KEY: small[:1], "features": features}))
        del features
        if len(flights) == 4:
            found.append(np.array(read(driver, flights.pop(0).collect())["labels"]))
        if number == 4:  # its last run may be under way
            del maker
            makers[0] = backend.compile(model, key.resident)
    return [*found, *(np.array(read(driver, flight.collect())["labels"]) for flight in flights)]


def test_streams_in_flight_have_the_results_of_one_after_another_without_a_race(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", motion_gain=0.02, flow=(0.3, -0.6))
    alone = Engine(bundle, "onnxruntime")
    expected = []
    for number in range(SESSIONS):
        session = StreamSession(alone, FixedInterval(3))
        expected.append([session.process(frame).labels for frame in noise(FRAMES + number, 64, 96)[:FRAMES]])
    driver = RaceDriver()
    np.testing.assert_array_equal(serve(bundle, driver, monkeypatch), expected)
    assert driver.checked > 200
    assert not driver.races
    gc.collect()
    assert not any((driver.streams, driver.events, driver.graphs, driver.pinned))


def test_nobody_waits_for_features_that_stay_on_the_device_but_the_stream_that_uses_them(tmp_path: Path) -> None:
    bundle, driver = tiny_bundle(tmp_path / "tiny", motion_gain=0.02, flow=(0.3, -0.6)), RaceDriver()
    found = chain(bundle, driver)
    assert not driver.races
    backend = CheckedBackend(RaceDriver())
    key, propagate = fuse_key(bundle, 64, 96), fuse_propagate(bundle, 64, 96)
    maker, reader = backend.compile(key.model, key.resident), backend.compile(propagate.model)
    frames, small = noise(6, 64, 96), noise(6, 32, 48)
    for number in range(6):
        features = maker.run({"frame": frames[number : number + 1]})["features"]
        inputs = {CURRENT: small[number : number + 1], KEY: small[:1], "features": features}
        np.testing.assert_array_equal(found[number], reader.run(inputs)["labels"])
    gc.collect()
    assert len(driver.streams) == 0


WAIT = "self._driver.wait(events[-1])"
MUTANTS = {
    "a stream doesn't follow another": ("self._follow(buffer)", "pass"),
    "streams follow only themselves": ("written.stream != self._stream", "written.stream == self._stream"),
    "features count as written when they are uploaded": ("buffer.written = computed", "buffer.written = uploaded"),
    "a wait ends with the upload": (WAIT, "self._driver.wait(events[1]); return"),
    "a wait ends before the download": (WAIT, "self._driver.wait(events[2]); return"),
    "results aren't waited for": ("        if run.slot.outputs:\n", "        if not run.slot.outputs:\n"),
    "inputs aren't kept": ("kept, inputs)", "kept, {})"),
    "a graph's features are copied by another stream": (
        "driver.copy(replay.moved[name].address, buffer.address, buffer.size, stream)",
        "driver.copy(replay.moved[name].address, buffer.address, buffer.size, next(iter(driver.streams)))",
    ),
    "a program ends before its runs": ("    driver.synchronize(stream)\n    for graph", "    for graph"),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # finalizers may fail, too
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_checker_finds_what_is_left_out(mutant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = MUTANTS[mutant]
    source = inspect.getsource(program_module)
    assert source.count(old) == 1, f"the code has changed: {old}"
    mutated = ModuleType("mutated")
    monkeypatch.setitem(sys.modules, "mutated", mutated)
    exec(source.replace(old, new), mutated.__dict__)
    bundle, driver = tiny_bundle(tmp_path / "tiny", motion_gain=0.02, flow=(0.3, -0.6)), RaceDriver()
    with suppress(RaceError, KeyError):  # a thread may meet it
        chain(bundle, driver, mutated)
        serve(bundle, driver, monkeypatch, mutated)
    assert driver.races


# -- CUDA graphs -------------------------------------------------------------------------------------------------------


class Uncapturable(HostExecutable):
    """An executable that can't become part of a CUDA graph."""

    def enqueue(self, addresses: Mapping[str, int], stream: int) -> None:
        super().enqueue(addresses, stream)
        if stream in self._driver.captures:
            raise BackendError("a layer waits for the device")


def labels(program: program_module.TensorRTProgram, count: int) -> list[NDArray[Any]]:
    frames = noise(count, 64, 96)
    return [np.array(program.run({"frame": frames[n : n + 1]})["labels"]) for n in range(count)]


@pytest.mark.parametrize("kind", [HostExecutable, Uncapturable])
def test_runs_are_repeated_as_a_cuda_graph_if_that_works(
    kind: type[HostExecutable], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, driver = fuse_key(tiny_bundle(tmp_path / "tiny"), 64, 96), FakeDriver()
    place = key.resident, driver, DeviceMemory(driver), "key"
    plain = program_module.TensorRTProgram(HostExecutable(simplify(key.model), driver), *place)
    program = program_module.TensorRTProgram(kind(simplify(key.model), driver), *place, replays=True)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(labels(program, 4), labels(plain, 4))
    works = kind is HostExecutable
    assert ["isn't run as a CUDA graph" in record.message for record in caplog.records] == [True] * (not works)
    assert not driver.captures
    del plain, program, place
    gc.collect()
    driver.assert_nothing_left()


def test_cuda_graphs_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert program_module.uses_cuda_graphs()
    monkeypatch.setenv(program_module.VARIABLE, "0")
    assert not program_module.uses_cuda_graphs()


# -- time --------------------------------------------------------------------------------------------------------------


def test_frames_in_flight_share_the_time_in_which_there_are_any() -> None:
    now = 0.0
    shared = SharedTime(lambda: now)
    marks = {}
    for at, who, frames in [
        (1.0, "a", 1),
        (2.0, "b", 1),
        (6.0, "a", -1),
        (7.0, "b", -1),
        (9.0, "c", 1),
        (9.5, "c", -1),
    ]:
        now = at
        marks[who, frames] = shared.given
        shared.count(frames)
    used = {who: marks[who, -1] - marks[who, 1] for who in "abc"}
    assert used == {"a": 1 + 4 / 2, "b": 4 / 2 + 1, "c": 0.5}


def test_the_loads_of_streams_in_flight_do_not_exceed_the_time(tmp_path: Path) -> None:
    engine = Engine(tiny_bundle(tmp_path / "tiny"), "onnxruntime", precision="fp32", lanes=LANES)
    executor = Executor(LANES, in_flight=True)
    sessions = [StreamSession(engine, FixedInterval(3)) for _ in range(SESSIONS)]
    began = time.perf_counter()
    futures = [executor.submit(session, frame) for frame in noise(9, 64, 96) for session in sessions]
    results = [future.result() for future in futures]
    passed = time.perf_counter() - began
    executor.close()
    assert 0 < sum((result.inference + result.postprocess) * result.share for result in results) <= passed
    assert all(0 < result.share <= 1 for result in results)
