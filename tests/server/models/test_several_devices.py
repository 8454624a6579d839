"""A server with several GPUs. Each is really the CPU under another name; everything else is real."""

import logging
import re
import weakref
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from keywarp.engines import BackendError, Engine, FrameResult, StreamSession
from keywarp.protocol import Hello, StreamInfo
from keywarp.server.devices import Device
from keywarp.server.process import Server
from keywarp.server.service import Service
from keywarp.server.settings import Settings
from tests.server.conftest import Running, Starter, eventually, hold
from tests.server.media import jpeg
from tests.server.models.loading import is_closed, is_freed
from tests.server.models.test_overload import PIXELS
from tests.server.routes.test_streams import create, problem
from tests.server.test_devices import FIRST, GPUS, SECOND
from tests.tiny_bundle import tiny_bundle


def two_devices(settings: Settings) -> tuple[Device, ...]:
    return tuple(Device(gpu, settings.max_wait) for gpu in GPUS)


def two_touchy_devices(settings: Settings) -> tuple[Device, ...]:
    """Return devices on which one long wait is enough for high pressure."""
    return tuple(Device(gpu, settings.max_wait, pressure_time_constant=0.001) for gpu in GPUS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_bundle(tmp_path / "models" / "tiny")
    return tmp_path / "models"


@pytest.fixture
def server(folder: Path, start: Starter) -> Running:
    return start(partial(Service, find_devices=two_devices), models=folder, model_control=True)


def info(server: Running, stream: str) -> StreamInfo:
    return StreamInfo.model_validate_json(server.http.get(f"/v1/streams/{stream}").text)


def metric(server: Running, name: str) -> dict[str, float]:
    """Return a metric's values by device."""
    lines = [line for line in server.http.get("/metrics").text.splitlines() if line.startswith(f"{name}{{device=")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}


def streams_on(server: Running) -> Counter[str]:
    return Counter(stream["device"] for stream in server.http.get("/v1/streams").json())


# -- placement ---------------------------------------------------------------------------------------------------------


def test_streams_are_spread_evenly_and_keep_their_device(server: Running) -> None:
    names = [create(server, interval=3).id for _ in range(6)]
    assert [info(server, name).device for name in names] == [FIRST, SECOND] * 3
    for _ in range(4):
        for name in names:
            assert server.frame(name).is_success
    assert [info(server, name).device for name in names] == [FIRST, SECOND] * 3
    engines = {info(server, name).device: server.service.streams[name].engine for name in names}
    assert engines[FIRST] is not engines[SECOND]
    assert server.http.get("/v1/models/tiny").json()["devices"] == [FIRST, SECOND]
    assert metric(server, "keywarp_device_streams") == {FIRST: 3, SECOND: 3}
    assert min(metric(server, "keywarp_device_busy_seconds_total").values()) > 0
    assert "keywarp_streams 6.0" in server.http.get("/metrics").text


def test_a_new_stream_takes_the_place_of_a_closed_one(server: Running) -> None:
    names = [create(server).id for _ in range(4)]
    for name in names[::2]:
        server.http.delete(f"/v1/streams/{name}")
    with server.connect("lives", Hello()) as talk:
        assert info(server, "lives").device == FIRST
        talk.frame(jpeg())
        assert talk.result().kind == "key"
    eventually(lambda: streams_on(server) == {SECOND: 2})
    assert [create(server).device for _ in range(3)] == [FIRST, FIRST, FIRST]


def test_one_device_does_not_wait_for_the_other(server: Running) -> None:
    slow, fast = create(server).id, create(server).id
    release = server.hold_device(0)
    with server.connect(slow, Hello()) as talk:
        talk.frame(jpeg())
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


# -- overload ----------------------------------------------------------------------------------------------------------


def test_new_streams_are_refused_when_no_device_can_serve_more(
    folder: Path, start: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    server = start(partial(Service, find_devices=two_touchy_devices), models=folder)
    first, second = server.service.devices
    releases = [hold(device) for device in (first, second)]
    with caplog.at_level(logging.INFO):
        first.pressure.record_wait(5.0)
        assert f"streams wait over 1 s for their turn on {FIRST}: it takes no new ones" in caplog.text
        assert {create(server).device for _ in range(3)} == {SECOND}
        assert "keywarp_pressure_ratio 0.0" in server.http.get("/metrics").text
        assert metric(server, "keywarp_device_pressure_ratio") == {FIRST: pytest.approx(1), SECOND: 0}
        second.pressure.record_wait(5.0)
        assert problem(server.http.post("/v1/streams", json={})).status == 503
        [ratio] = re.findall(r"^keywarp_pressure_ratio (.+)$", server.http.get("/metrics").text, re.MULTILINE)
        assert float(ratio) == pytest.approx(1)
    for release in releases:
        release()
    eventually(lambda: metric(server, "keywarp_device_queue_depth") == {FIRST: 0, SECOND: 0})
    assert create(server).device == FIRST


# -- models ------------------------------------------------------------------------------------------------------------


def test_a_version_is_freed_on_all_devices_after_its_last_stream(server: Running, folder: Path) -> None:
    old = [replica.engine for replica in server.service.models.replicas("tiny")]
    names = [create(server).id for _ in range(2)]
    tiny_bundle(folder / "tiny", version="2.0.0")
    answer = server.http.post("/v1/models/tiny/load").json()
    assert (answer["version"], answer["streams"], answer["draining"]) == ("2.0.0", 2, 2)
    assert answer["devices"] == [FIRST, SECOND]
    assert [server.frame(name).json()["key_age"] for name in names] == [0, 0]
    server.http.delete(f"/v1/streams/{names[0]}")
    assert server.frame(names[1]).json()["key_age"] == 1
    assert not any(is_closed(engine) for engine in old)
    server.http.delete(f"/v1/streams/{names[1]}")
    eventually(lambda: all(is_closed(engine) for engine in old))
    assert server.http.get("/v1/models/tiny").json()["draining"] == 0


def test_unloading_frees_the_engines_of_all_devices(server: Running) -> None:
    engines = [replica.engine for replica in server.service.models.replicas("tiny")]
    for _ in range(2):
        assert server.frame(create(server).id).is_success
    server.http.post("/v1/models/tiny/unload", params={"force": True})
    assert all(is_closed(engine) for engine in engines)
    freed = [weakref.ref(engine) for engine in engines]
    engines.clear()
    eventually(lambda: is_freed(*freed))
    assert metric(server, "keywarp_device_streams") == {FIRST: 0, SECOND: 0}


def fail_second_gpu(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """Let the first frame on the second GPU fail. Return the list to which the engines are added that were tried."""
    tried: list[Engine] = []
    process = StreamSession.process

    def fail_on_second(session: StreamSession, *arguments: Any, **options: Any) -> FrameResult:
        if session.engine not in tried:
            tried.append(session.engine)
        if len(tried) == 2:
            raise BackendError("the GPU is full")
        return process(session, *arguments, **options)

    monkeypatch.setattr(StreamSession, "process", fail_on_second)
    return tried


def test_a_model_that_fails_on_one_device_is_not_loaded_and_the_error_names_the_device(
    server: Running, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = fail_second_gpu(monkeypatch)
    tiny_bundle(folder / "tiny", version="2.0.0")
    refused = problem(server.http.post("/v1/models/tiny/load"))
    assert refused.status == 422
    assert refused.detail == (
        f"model 'tiny' can't be loaded: it can't be compiled or run on {SECOND}; the server's log says why"
    )
    assert f"{SECOND}: the GPU is full" in caplog.text
    assert [is_closed(engine) for engine in tried] == [True, True]
    assert server.http.get("/v1/models/tiny").json()["version"] == "1.0.0"
    assert [create(server).device for _ in range(2)] == [FIRST, SECOND]


def test_the_server_stops_if_a_model_fails_on_one_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_second_gpu(monkeypatch)
    settings = Settings(models=folder, backend="onnxruntime", port=0)
    server = Server(settings, Service(settings, find_devices=two_devices))
    server.run()
    assert str(server.service.failure) == f"{SECOND}: the GPU is full"
