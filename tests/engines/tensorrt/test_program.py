"""Programs on a fake driver: copies, resident outputs, types, memory. The graphs really run, on the CPU."""

import gc
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from keywarp.engines import BackendError, Engine, FixedInterval, StreamSession
from keywarp.engines import engine as engine_module
from keywarp.engines.backends.half import to_half
from keywarp.engines.backends.interface import DeviceTensor
from keywarp.engines.backends.tensorrt.device_memory import DeviceMemory
from keywarp.engines.backends.tensorrt.program import Flight, TensorRTProgram
from keywarp.engines.backends.warping import simplify
from keywarp.engines.fusion import CURRENT, KEY, GraphStyle, fuse_key, fuse_propagate
from tests.engines.tensorrt.fake_driver import FakeDriver, HostExecutable
from tests.engines.test_fusion import noise
from tests.tiny_bundle import tiny_bundle

if TYPE_CHECKING:
    from numpy.typing import NDArray


class HostBackend:
    """The TensorRT backend without TensorRT: graphs run on the fake driver's memory."""

    name, device, reason = "tensorrt", "a fake GPU", "a test"
    style = GraphStyle()
    frames = None
    in_flight = True

    def __init__(self, driver: FakeDriver, precision: str, *, replays: bool = False) -> None:
        self.driver = driver
        self.memory = DeviceMemory(driver)
        self.precision = precision
        self.replays = replays

    def compile(self, model: onnx.ModelProto, resident: frozenset[str] = frozenset()) -> TensorRTProgram:
        return self.compile_lanes(model, resident, 1)[0]

    def compile_lanes(
        self, model: onnx.ModelProto, resident: frozenset[str] = frozenset(), lanes: int = 2
    ) -> tuple[TensorRTProgram, ...]:
        graph = to_half(simplify(model), resident) if self.precision == "fp16" else simplify(model)
        place = self.driver, self.memory, model.graph.name
        return tuple(
            TensorRTProgram(HostExecutable(graph, self.driver), resident, *place, replays=self.replays)
            for _ in range(lanes)
        )


@pytest.mark.parametrize(("precision", "agreement"), [("fp32", 1.0), ("fp16", 0.99)])
def test_streams_have_the_same_results_as_on_the_cpu_and_leak_nothing(
    precision: str, agreement: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", motion_gain=0.02, flow=(0.3, -0.6))
    frames = noise(7, 64, 96)
    session = StreamSession(Engine(bundle, "onnxruntime"), FixedInterval(3))
    expected = np.stack([session.process(frame).labels for frame in frames])

    driver = FakeDriver()
    monkeypatch.setattr(engine_module, "open_backend", lambda *_, **__: HostBackend(driver, precision))
    engine = Engine(bundle)
    sessions = [StreamSession(engine, FixedInterval(3)) for _ in range(3)]
    results = [[session.process(frame).labels for session in sessions] for frame in frames]
    for number in range(len(sessions)):
        found = np.stack([labels[number] for labels in results])
        assert (found == expected).mean() >= agreement

    engine.close()
    for session in sessions:
        session.close()
    del engine, session, sessions
    gc.collect()
    driver.assert_nothing_left()


def test_key_features_stay_on_the_device_and_their_memory_is_reused(tmp_path: Path) -> None:
    bundle, driver = tiny_bundle(tmp_path / "tiny"), FakeDriver()
    backend = HostBackend(driver, "fp16")
    key = fuse_key(bundle, 64, 96)
    program = backend.compile(key.model, key.resident)
    before = backend.memory.used
    frame = noise(1, 64, 96)
    outputs = program.run({"frame": frame})
    resident = 3 * 4 * 6 * 2  # features, fp16
    assert backend.memory.used - before == resident + frame.nbytes
    assert isinstance(outputs["features"], DeviceTensor)
    second = program.run({"frame": frame})
    assert backend.memory.used - before == 2 * resident + frame.nbytes  # the first ones are still referenced
    blocks = len(driver.blocks)
    del outputs, second
    program.run({"frame": frame})
    assert len(driver.blocks) == blocks
    assert backend.memory.used - before == frame.nbytes


def test_a_run_is_timed_by_the_device(tmp_path: Path) -> None:
    key = fuse_key(tiny_bundle(tmp_path / "tiny"), 64, 96)
    program = HostBackend(FakeDriver(), "fp32").compile(key.model, key.resident)
    assert program.timing is None
    program.run({"frame": noise(1, 64, 96)})
    assert program.timing is not None
    assert min(program.timing.upload, program.timing.compute, program.timing.download) > 0


def test_a_full_device_frees_idle_buffers_and_then_says_how_much_is_in_use() -> None:
    driver = FakeDriver(capacity=1000)
    memory = DeviceMemory(driver)
    held = memory.buffer(600)
    with pytest.raises(BackendError, match=r"the GPU is full: 0\.0 MB can't be allocated"):
        memory.buffer(500)
    del held
    assert memory.buffer(500).size == 500  # the idle 600 made room


def test_buffers_may_outlive_the_backend() -> None:
    driver = FakeDriver()
    memory = DeviceMemory(driver)
    buffer, gone = memory.buffer(100), weakref.ref(memory)
    del memory
    assert list(driver.blocks) == [buffer.address]
    del buffer
    gc.collect()
    assert gone() is None
    driver.assert_nothing_left()


def test_wrong_inputs_are_refused_before_anything_is_queued(tmp_path: Path) -> None:
    bundle, driver = tiny_bundle(tmp_path / "tiny"), FakeDriver()
    backend = HostBackend(driver, "fp32")
    propagate = backend.compile(fuse_propagate(bundle, 64, 96).model)
    features, fewer = (
        backend.compile(key.model, key.resident).run({"frame": noise(1, height, 96)})["features"]
        for height, key in ((height, fuse_key(bundle, height, 96)) for height in (64, 32))
    )
    small = noise(1, 32, 48)
    with pytest.raises(BackendError, match=r"shape \(1, 32, 48, 3\), not \(1, 16, 48, 3\)"):
        propagate.run({CURRENT: noise(1, 16, 48), KEY: small, "features": features})
    with pytest.raises(BackendError, match="needs the input key"):
        propagate.run({CURRENT: small, "features": features})
    with pytest.raises(BackendError, match="expects features of 288 bytes, not"):
        propagate.run({CURRENT: small, KEY: small, "features": fewer})
    assert not any(driver.streams.values())


def test_frames_in_flight_have_the_results_of_one_after_another(tmp_path: Path) -> None:
    """Key features are dropped while the run that uses them is under way, and other runs ask for memory."""
    bundle, driver = tiny_bundle(tmp_path / "tiny", motion_gain=0.02, flow=(0.3, -0.6)), FakeDriver()
    memory = DeviceMemory(driver)
    key, propagate = fuse_key(bundle, 64, 96), fuse_propagate(bundle, 64, 96)
    programs = [
        TensorRTProgram(HostExecutable(simplify(g.model), driver), g.resident, driver, memory, "graph", slots=2)
        for g in (key, propagate)
    ]
    frames, small = noise(8, 64, 96), noise(8, 32, 48)
    expected = []
    for number in range(8):
        features = programs[0].run({"frame": frames[number : number + 1]})["features"]
        inputs = {CURRENT: small[number : number + 1], KEY: small[:1], "features": features}
        expected.append(np.array(programs[1].run(inputs)["labels"]))

    found: list[NDArray[np.uint8]] = []
    flights: list[Flight] = []
    for number in range(8):
        frame, image = frames[number : number + 1].copy(), small[number : number + 1].copy()
        features = programs[0].submit({"frame": frame}).collect()["features"]
        flights.append(programs[1].submit({CURRENT: image, KEY: small[:1], "features": features}))
        del features
        frame[:], image[:] = 0, 0  # the next frame is decoded into the same memory
        if len(flights) == 2:
            found.append(np.array(flights.pop(0).collect()["labels"]))
    found += [np.array(flight.collect()["labels"]) for flight in flights]
    np.testing.assert_array_equal(found, expected)
    del programs, flights, memory, inputs
    gc.collect()
    driver.assert_nothing_left()


def test_a_run_that_is_not_collected_in_time_is_lost_but_harms_no_other(tmp_path: Path) -> None:
    key, driver = fuse_key(tiny_bundle(tmp_path / "tiny"), 64, 96), FakeDriver()
    executable = HostExecutable(simplify(key.model), driver)
    program = TensorRTProgram(executable, key.resident, driver, DeviceMemory(driver), "key", slots=2)
    frames = noise(3, 64, 96)
    first, second, third = (program.submit({"frame": frames[n : n + 1]}) for n in range(3))
    later = np.array(third.collect()["labels"]), np.array(second.collect()["labels"])
    alone = [np.array(program.run({"frame": frames[n : n + 1]})["labels"]) for n in (2, 1)]
    np.testing.assert_array_equal(later, alone)
    for flight in (first, second):
        with pytest.raises(BackendError, match="the graph key wasn't collected in time, or was collected before"):
            flight.collect()


class UnreliableExecutable(HostExecutable):
    """An executable whose first run fails."""

    failed = False

    def enqueue(self, addresses: Mapping[str, int], stream: int) -> None:
        if not self.failed:
            self.failed = True
            raise BackendError("the device is lost")
        super().enqueue(addresses, stream)


def test_a_failing_device_leaves_the_program_usable(tmp_path: Path) -> None:
    key, driver = fuse_key(tiny_bundle(tmp_path / "tiny"), 64, 96), FakeDriver()
    executable = UnreliableExecutable(simplify(key.model), driver)
    program = TensorRTProgram(executable, key.resident, driver, DeviceMemory(driver), "key")
    with pytest.raises(BackendError, match="lost"):
        program.run({"frame": noise(1, 64, 96)})
    assert program.run({"frame": noise(1, 64, 96)}).keys() == {"labels", "features"}
