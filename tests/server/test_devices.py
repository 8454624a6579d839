"""Devices: which there are, how loaded they are, and which one a new stream gets."""

from pathlib import Path

import pytest

from keywarp.engines import BackendError, Engine, Gpu
from keywarp.engines.backends import BackendName
from keywarp.engines.devices import BackendChoice
from keywarp.server import devices as devices_module
from keywarp.server.devices import MIN_AGE, TIME_CONSTANT, Device, StreamLoad, find_devices
from keywarp.server.models.replicas import Replica, least_loaded
from keywarp.server.settings import Settings
from tests.server.clock import Clock
from tests.server.conftest import hold
from tests.tiny_bundle import tiny_bundle

GPUS = tuple(Gpu(index, "Tesla T4", "580.65", (7, 5), 16 * 2**30) for index in (0, 1))
FIRST, SECOND = (gpu.label for gpu in GPUS)

# -- load and placement ------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def replicas(tmp_path: Path, clock: Clock) -> tuple[Replica, ...]:
    engine = Engine(tiny_bundle(tmp_path / "tiny"), "onnxruntime")
    return tuple(Replica(engine, Device(gpu, 1.0, clock=clock)) for gpu in GPUS)


def run(clock: Clock, seconds: float, *shares: tuple[StreamLoad, float]) -> None:
    """Let streams take shares of their devices' time for some seconds, with ten frames a second."""
    for _ in range(round(10 * seconds)):
        clock.now += 0.1
        for load, share in shares:
            load.add(share / 10)


def test_a_streams_load_is_its_share_of_the_last_seconds(clock: Clock) -> None:
    load = StreamLoad(clock)
    load.add(1.5)  # the first key frame, which takes longer than later ones
    assert load.share is None
    run(clock, MIN_AGE - 0.5, (load, 0.3))
    assert load.share is None
    load = StreamLoad(clock)
    for share in (0.3, 0.6, 0.0):
        run(clock, 5 * TIME_CONSTANT, (load, share))
        assert load.share == pytest.approx(share, abs=0.01)


def test_a_new_stream_goes_to_the_device_with_the_least_load(clock: Clock, replicas: tuple[Replica, ...]) -> None:
    first, second = (replica.device for replica in replicas)
    heavy, *light = first.add_stream(), *(second.add_stream() for _ in range(3))
    run(clock, 20, (heavy, 0.8), *((load, 0.05) for load in light))
    assert least_loaded(replicas).device is second, "three light streams take less than the heavy one"
    first.remove_stream(heavy)
    first.remove_stream(heavy)
    assert least_loaded(replicas).device is first


def test_many_new_streams_at_once_spread_over_the_devices(clock: Clock, replicas: tuple[Replica, ...]) -> None:
    first = replicas[0].device
    known = [first.add_stream() for _ in range(2)]
    run(clock, 20, *((load, 0.2) for load in known))
    chosen = []
    for _ in range(6):
        chosen.append(least_loaded(replicas).device)
        chosen[-1].add_stream()
    assert chosen.count(first) == 2, "so that each device has four streams"


def test_of_two_equally_loaded_devices_the_one_with_fewer_streams_is_chosen(
    clock: Clock, replicas: tuple[Replica, ...]
) -> None:
    first, second = (replica.device for replica in replicas)
    run(clock, 50, (first.add_stream(), 0.49), (first.add_stream(), 0.49), (second.add_stream(), 1.0))
    assert least_loaded(replicas).device is second


def test_a_device_under_pressure_gets_no_stream_while_another_can(clock: Clock, replicas: tuple[Replica, ...]) -> None:
    first, second = (replica.device for replica in replicas)
    run(clock, 20, (second.add_stream(), 0.9))
    assert least_loaded(replicas).device is first
    release = hold(first)
    for _ in range(100):
        clock.now += 0.2
        first.pressure.record_wait(5.0)
    assert first.pressure.is_high
    assert least_loaded(replicas).device is second
    release()


# -- the devices of a backend ------------------------------------------------------------------------------------------


def names(settings: Settings) -> list[str]:
    return [device.name for device in find_devices(settings)]


def test_the_cpu_is_one_device(models: Path) -> None:
    assert names(Settings(models=models, backend="onnxruntime")) == ["CPU"]


def test_all_gpus_that_the_backend_can_use_are_devices(
    models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def open_backend(name: BackendName, _precision: str, *, gpu: Gpu) -> object:
        if gpu.index in broken:
            raise BackendError(f"{name} doesn't start")
        return object()

    broken = {0}
    monkeypatch.setattr(devices_module, "choose_backend", lambda name: BackendChoice(name, GPUS, "a test"))
    monkeypatch.setattr(devices_module, "open_backend", open_backend)
    settings = Settings(models=models, backend="tensorrt")
    assert names(settings) == [FIRST, SECOND], "a broken GPU is an error when it is used"
    lenient = settings.model_copy(update={"cpu_fallback": True})
    assert names(lenient) == [SECOND]
    assert f"{FIRST} isn't used: tensorrt doesn't start" in caplog.text
    broken.add(1)
    assert names(lenient) == ["CPU"]


def test_there_are_no_more_lanes_than_cores(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(devices_module, "available_cores", lambda: 4)
    for asked, given in ((1, 1), (4, 4), (99, 4)):
        [device] = find_devices(Settings(backend="onnxruntime", lanes=asked))
        assert device.executor.lanes == given
        device.executor.close()
    assert "4 lanes instead of 99" in caplog.text
