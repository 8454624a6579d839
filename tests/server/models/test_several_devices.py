"""Several GPUs in one server. There is none, so each is the CPU under another name; all the rest is real."""

import gc
import logging
import weakref
from collections import Counter
from pathlib import Path

import pytest

from keywarp.engines import BackendError, Engine, Gpu
from keywarp.engines.backends import BackendName
from keywarp.engines.devices import Choice
from keywarp.protocol import Hello, StreamInfo
from keywarp.server import Server, Settings, pressure
from keywarp.server import devices as devices_module
from keywarp.server import service as service_module
from keywarp.server.devices import SPAN, YOUNG, Demand, Device, find_devices
from keywarp.server.models import replicas as replicas_module
from keywarp.server.models.replicas import Replica, least_loaded
from tests.server.conftest import Running, Starter, eventually
from tests.server.media import jpeg
from tests.server.models.test_overload import PIXELS, Clock
from tests.server.routes.test_streams import create, problem
from tests.tiny_bundle import tiny_bundle

GPUS = tuple(Gpu(index, "Tesla T4", "580.65", (7, 5), 16 * 2**30) for index in (0, 1))
FIRST, SECOND = (gpu.label for gpu in GPUS)


def two_devices(settings: Settings) -> tuple[Device, ...]:
    return tuple(Device(gpu, settings.max_wait) for gpu in GPUS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_bundle(tmp_path / "models" / "tiny")
    return tmp_path / "models"


@pytest.fixture
def server(folder: Path, start: Starter, monkeypatch: pytest.MonkeyPatch) -> Running:
    monkeypatch.setattr(service_module, "find_devices", two_devices)
    return start(models=folder, model_control=True)


def shown(server: Running, stream: str) -> StreamInfo:
    return StreamInfo.model_validate_json(server.http.get(f"/v1/streams/{stream}").text)


def metric(server: Running, name: str) -> dict[str, float]:
    """By device."""
    lines = [line for line in server.http.get("/metrics").text.splitlines() if line.startswith(f"{name}{{device=")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}


def streams_on(server: Running) -> Counter[str]:
    return Counter(stream["device"] for stream in server.http.get("/v1/streams").json())


# -- placement ---------------------------------------------------------------------------------------------------------


def test_streams_are_spread_evenly_and_stay_where_they_are(server: Running) -> None:
    names = [create(server, interval=3).id for _ in range(6)]
    assert [shown(server, name).device for name in names] == [FIRST, SECOND] * 3
    for _ in range(4):
        for name in names:
            assert server.frame(name).is_success
    assert [shown(server, name).device for name in names] == [FIRST, SECOND] * 3
    engines = {shown(server, name).device: server.service.streams[name].engine for name in names}
    assert engines[FIRST] is not engines[SECOND]
    assert server.http.get("/v1/models/tiny").json()["devices"] == [FIRST, SECOND]
    assert metric(server, "keywarp_device_streams") == {FIRST: 3, SECOND: 3}
    assert min(metric(server, "keywarp_device_busy_seconds_total").values()) > 0
    assert "keywarp_streams 6.0" in server.http.get("/metrics").text


def test_a_stream_that_is_gone_leaves_its_place_to_the_next(server: Running) -> None:
    names = [create(server).id for _ in range(4)]
    for name in names[::2]:
        server.http.delete(f"/v1/streams/{name}")
    with server.connect("lives", Hello()) as talk:
        assert shown(server, "lives").device == FIRST
        talk.frame(jpeg())
        assert talk.result().kind == "key"
    eventually(lambda: streams_on(server) == {SECOND: 2})
    assert [create(server).device for _ in range(3)] == [FIRST, FIRST, FIRST]


def test_one_device_does_not_wait_for_the_other(server: Running) -> None:
    slow, fast = create(server).id, create(server).id
    release = server.hold_device(0)
    with server.connect(slow, Hello()) as talk:
        talk.frame(jpeg())
        # The queue holds the frame, and the one that keeps the device busy.
        eventually(lambda: metric(server, "keywarp_device_queue_depth") == {FIRST: 2, SECOND: 0})
        assert "keywarp_queue_depth 2.0" in server.http.get("/metrics").text
        assert [server.frame(fast).json()["kind"] for _ in range(3)] == ["key", "propagated", "propagated"]
        release()
        assert talk.result().kind == "key"


def test_single_images_go_to_the_least_loaded_device(server: Running) -> None:
    assert create(server).device == FIRST
    assert server.http.post("/v2/models/tiny/infer", json={"inputs": [PIXELS]}).is_success
    busy = metric(server, "keywarp_device_busy_seconds_total")
    assert (busy[FIRST], busy[SECOND] > 0) == (0, True)
    assert metric(server, "keywarp_device_streams") == {FIRST: 1, SECOND: 0}


# -- load --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(devices_module, "time", clock)
    monkeypatch.setattr(pressure, "time", clock)
    return clock


@pytest.fixture
def replicas(tmp_path: Path) -> tuple[Replica, ...]:
    engine = Engine(tiny_bundle(tmp_path / "tiny"), "onnxruntime")
    return tuple(Replica(engine, Device(gpu, 1.0)) for gpu in GPUS)


def run(clock: Clock, seconds: float, **shares: tuple[Demand, float]) -> None:
    """Let streams take shares of their devices' time, in ten frames a second."""
    for _ in range(round(10 * seconds)):
        clock.now += 0.1
        for demand, share in shares.values():
            demand.note(share / 10)


def test_a_demand_is_the_share_of_the_last_seconds(clock: Clock) -> None:
    demand = Demand()
    demand.note(1.5)  # a first key frame, which says nothing
    assert demand.share is None
    run(clock, YOUNG - 0.5, it=(demand, 0.3))
    assert demand.share is None
    demand = Demand()
    for share in (0.3, 0.6, 0.0):
        run(clock, 5 * SPAN, it=(demand, share))
        assert demand.share == pytest.approx(share, abs=0.01)


def test_a_new_stream_goes_where_streams_take_the_least(clock: Clock, replicas: tuple[Replica, ...]) -> None:
    first, second = (replica.device for replica in replicas)
    heavy, *light = first.join(), *(second.join() for _ in range(3))
    run(clock, 20, heavy=(heavy, 0.8), **{str(i): (demand, 0.05) for i, demand in enumerate(light)})
    assert least_loaded(replicas).device is second, "three light streams take less than the heavy one"
    first.leave(heavy)
    first.leave(heavy)
    assert least_loaded(replicas).device is first


def test_many_new_streams_at_once_do_not_all_go_to_the_idle_device(clock: Clock, replicas: tuple[Replica, ...]) -> None:
    first = replicas[0].device
    known = [first.join() for _ in range(2)]
    run(clock, 20, a=(known[0], 0.2), b=(known[1], 0.2))
    chosen = []
    for _ in range(6):
        chosen.append(least_loaded(replicas).device)
        chosen[-1].join()
    assert chosen.count(first) == 2, "4 and 4 in the end"


def test_two_devices_that_are_both_full_are_told_apart_by_their_streams(
    clock: Clock, replicas: tuple[Replica, ...]
) -> None:
    first, second = (replica.device for replica in replicas)
    demands = {"a": (first.join(), 0.49), "b": (first.join(), 0.49), "c": (second.join(), 1.0)}
    run(clock, 50, **demands)
    assert least_loaded(replicas).device is second


def test_a_device_under_pressure_gets_none_while_another_can(clock: Clock, replicas: tuple[Replica, ...]) -> None:
    first, second = (replica.device for replica in replicas)
    run(clock, 20, it=(second.join(), 0.9))
    assert least_loaded(replicas).device is first
    first.executor._depth = 1  # it isn't idle
    for _ in range(100):
        clock.now += 0.2
        first.pressure.note(5.0)
    assert first.pressure.is_high
    assert least_loaded(replicas).device is second


def test_new_streams_are_refused_when_no_device_can_serve_more(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = server.service.devices
    monkeypatch.setattr(pressure, "SPAN", 0.001)
    with caplog.at_level(logging.INFO), monkeypatch.context() as patch:
        for device in (first, second):
            patch.setattr(device.executor, "_depth", 1)
        first.pressure.note(5.0)
        assert f"streams wait over 1 s for their turn on {FIRST}: it takes no new ones" in caplog.text
        assert {create(server).device for _ in range(3)} == {SECOND}
        assert "keywarp_pressure_ratio 0.0" in server.http.get("/metrics").text
        assert metric(server, "keywarp_device_pressure_ratio") == {FIRST: 1, SECOND: 0}
        second.pressure.note(5.0)
        assert problem(server.http.post("/v1/streams", json={})).status == 503
        assert "keywarp_pressure_ratio 1.0" in server.http.get("/metrics").text
    assert create(server).device == FIRST


# -- models ------------------------------------------------------------------------------------------------------------


def test_a_version_is_freed_on_all_devices_after_its_last_stream_on_any(server: Running, folder: Path) -> None:
    old = [replica.engine for replica in server.service.models.replicas("tiny")]
    names = [create(server).id for _ in range(2)]
    tiny_bundle(folder / "tiny", version="2.0.0")
    answer = server.http.post("/v1/models/tiny/load").json()
    assert (answer["version"], answer["streams"], answer["draining"]) == ("2.0.0", 2, 2)
    assert answer["devices"] == [FIRST, SECOND]
    assert [server.frame(name).json()["key_age"] for name in names] == [0, 0]
    server.http.delete(f"/v1/streams/{names[0]}")
    assert server.frame(names[1]).json()["key_age"] == 1
    assert not any(engine._closed for engine in old)
    server.http.delete(f"/v1/streams/{names[1]}")
    eventually(lambda: all(engine._closed for engine in old))
    assert server.http.get("/v1/models/tiny").json()["draining"] == 0


def test_unloading_frees_the_engines_of_all_devices(server: Running) -> None:
    engines = [replica.engine for replica in server.service.models.replicas("tiny")]
    for _ in range(2):
        assert server.frame(create(server).id).is_success
    programs = [weakref.ref(future.result().key) for engine in engines for future in engine._programs.values()]
    assert len(programs) == 4, "the frames' size and that of the warm-up, on both"
    server.http.post("/v1/models/tiny/unload", params={"force": True})
    assert all(engine._closed for engine in engines)
    gc.collect()
    assert [program() for program in programs] == [None] * 4
    assert metric(server, "keywarp_device_streams") == {FIRST: 0, SECOND: 0}


def refuse_second(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """Let the second GPU fail. Returns the engines that were tried."""
    tried: list[Engine] = []

    def fail(engine: Engine) -> None:
        tried.append(engine)
        if len(tried) == 2:
            raise BackendError("the GPU is full")

    monkeypatch.setattr(replicas_module, "_warm_up", fail)
    return tried


def test_a_model_that_fails_on_one_device_is_not_loaded_and_says_where(
    server: Running, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = refuse_second(monkeypatch)
    tiny_bundle(folder / "tiny", version="2.0.0")
    refused = problem(server.http.post("/v1/models/tiny/load"))
    assert refused.status == 422
    assert refused.detail == (
        f"model 'tiny' can't be loaded: it can't be compiled or run on {SECOND}; the server's log says why"
    )
    assert f"{SECOND}: the GPU is full" in caplog.text
    assert [engine._closed for engine in tried] == [True, True]
    assert server.http.get("/v1/models/tiny").json()["version"] == "1.0.0"
    assert [create(server).device for _ in range(2)] == [FIRST, SECOND]


def test_the_server_stops_if_a_model_fails_on_one_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "find_devices", two_devices)
    refuse_second(monkeypatch)
    server = Server(Settings(models=folder, backend="onnxruntime", port=0))
    server.run()
    assert str(server.service.failure) == f"{SECOND}: the GPU is full"


# -- which devices -----------------------------------------------------------------------------------------------------


def names(settings: Settings) -> list[str]:
    return [device.name for device in find_devices(settings)]


def test_the_cpu_is_one_device(folder: Path) -> None:
    assert names(Settings(models=folder, backend="onnxruntime")) == ["CPU"]


def test_all_gpus_that_the_backend_can_use_are_devices(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def open_backend(name: BackendName, _precision: str, *, gpu: Gpu) -> object:
        if gpu.index in broken:
            raise BackendError(f"{name} doesn't start")
        return object()

    broken = {0}
    monkeypatch.setattr(devices_module, "choose_backend", lambda name: Choice(name, GPUS, "a test"))
    monkeypatch.setattr(devices_module, "open_backend", open_backend)
    settings = Settings(models=folder, backend="tensorrt")
    assert names(settings) == [FIRST, SECOND], "whichever is broken is an error when it is used"
    lenient = settings.model_copy(update={"cpu_fallback": True})
    assert names(lenient) == [SECOND]
    assert f"{FIRST} is left out: tensorrt doesn't start" in caplog.text
    broken.add(1)
    assert names(lenient) == ["CPU"]
