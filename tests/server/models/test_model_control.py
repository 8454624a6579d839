"""Models that are loaded and unloaded by REST on a real server, while streams run."""

import socket
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tritonclient.http import InferenceServerClient

from keywarp.engines import BundleError, Engine, FrameResult, StreamSession
from keywarp.protocol import CloseCode, Hello
from keywarp.server.process import Server
from keywarp.server.security.keys import new_key
from keywarp.server.settings import Settings
from tests.server.conftest import Running, Starter, StreamConnection, eventually
from tests.server.media import GREEN, RED, jpeg
from tests.server.models.loading import HeldLoads, damage, is_closed, is_freed, load, unload
from tests.server.routes.test_open_inference import image, kind
from tests.server.routes.test_streams import problem
from tests.tiny_bundle import tiny_bundle


def engine_of(server: Running, name: str) -> Engine:
    return server.service.models[name]


@contextmanager
def undisturbed(server: Running, model: str) -> Iterator[Callable[[], None]]:
    """Check that a stream runs on; the callable sends a frame and expects it to be propagated."""
    with server.connect(f"on-{model}", Hello(model=model, interval=1000)) as talk:
        talk.frame(jpeg(GREEN))
        assert talk.result().kind == "key"

        def go_on() -> None:
            talk.frame(jpeg(GREEN))
            result = talk.result()
            assert (result.frame, result.key_age) == (talk.sent - 1, talk.sent - 1)
            assert result.segmentation
            assert [region.name for region in result.segmentation.regions] == ["green"]

        yield go_on
        go_on()


def frame(talk: StreamConnection, *, width: int = 128) -> int:
    talk.frame(jpeg(RED, width=width))
    return talk.result().key_age


# -- switching ---------------------------------------------------------------------------------------------------------


def test_new_streams_get_the_new_version_and_open_ones_keep_theirs(server: Running, folder: Path) -> None:
    old = weakref.ref(engine_of(server, "tiny"))
    with undisturbed(server, "other") as go_on, server.connect("old", Hello(model="tiny")) as first:
        assert [frame(first) for _ in range(2)] == [0, 1]
        tiny_bundle(folder / "tiny", version="2.0.0", key_interval=3, flow=(1.0, 0.0))  # other files
        answer = load(server, "tiny").json()
        assert (answer["version"], answer["state"], answer["streams"], answer["draining"]) == ("2.0.0", "ready", 1, 1)
        with server.connect("new", Hello(model="tiny")) as second:
            assert (second.ready.model.version, second.ready.interval) == ("2.0.0", 3)
            assert frame(first) == 2
            assert frame(second) == 0
            assert frame(first, width=160) == 0, "a size that is first compiled when the folder is another version's"
            assert frame(first, width=160) == 1
            go_on()
        assert server.service.models.count_versions()["draining"] == 1
    eventually(lambda: server.service.models.count_versions()["draining"] == 0)
    eventually(lambda: is_freed(old))
    assert server.http.get("/v1/models/tiny").json()["streams"] == 0


def test_a_version_without_streams_is_freed_at_once(server: Running) -> None:
    before = engine_of(server, "tiny")
    answer = load(server, "tiny").json()
    assert (answer["draining"], is_closed(before)) == (0, True)


@pytest.mark.parametrize("fault", ["damaged", "manifest", "runtime"])
def test_a_failed_load_keeps_the_present_version(
    server: Running, folder: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = {"damaged": "tiny/head.onnx doesn't match", "manifest": "not a valid manifest", "runtime": "log says why"}
    if fault == "damaged":
        damage(folder, "tiny")
    elif fault == "manifest":
        (folder / "tiny" / "bundle.json").write_text("{}")
    else:
        fail_new_engines(server, monkeypatch)
    with undisturbed(server, "tiny") as go_on, undisturbed_sequence(server):
        refused = problem(load(server, "tiny"))
        assert refused.status == 422
        assert says[fault] in refused.detail
        assert str(folder) not in refused.detail
        go_on()
        shown = server.http.get("/v1/models/tiny").json()
        assert (shown["state"], shown["version"], shown["draining"]) == ("ready", "1.0.0", 0)
        assert says[fault] in shown["reason"]
        assert str(folder) not in shown["reason"]
        with server.connect("new", Hello(model="tiny")) as talk:
            assert frame(talk) == 0
    monkeypatch.undo()
    tiny_bundle(folder / "tiny")
    assert load(server, "tiny").json()["reason"] is None


def fail_new_engines(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every frame fail on all engines but those that the server has now."""
    engines, process = list(server.service.models), StreamSession.process

    def fail(session: StreamSession, *arguments: Any, **options: Any) -> FrameResult:
        if session.engine not in engines:
            raise ZeroDivisionError
        return process(session, *arguments, **options)

    monkeypatch.setattr(StreamSession, "process", fail)


@contextmanager
def undisturbed_sequence(server: Running) -> Iterator[None]:
    with InferenceServerClient(server.url.removeprefix("http://")) as client:
        assert kind(client.infer("tiny", [image(jpeg())], sequence_id=1, sequence_start=True)) == ("key", 0)
        yield
        assert kind(client.infer("tiny", [image(jpeg())], sequence_id=1, sequence_end=True)) == ("propagated", 1)


def test_streams_run_on_while_a_model_is_loaded(server: Running, held_loads: HeldLoads, folder: Path) -> None:
    tiny_bundle(folder / "tiny", version="2.0.0")
    tiny_bundle(folder / "late", name="late")
    with undisturbed(server, "tiny") as go_on, ThreadPoolExecutor() as pool:
        loads = [pool.submit(load, server, name) for name in ("tiny", "late")]
        eventually(lambda: server.service.models.count_versions()["loading"] == 2)
        for _ in range(20):
            go_on()
        with server.connect("new", Hello(model="tiny")) as talk:
            assert talk.ready.model.version == "1.0.0"
        assert server.http.get("/readyz").is_success
        states = {model["name"]: model["state"] for model in server.http.get("/v1/models").json()}
        assert states == {"other": "ready", "tiny": "ready", "late": "loading"}
        assert problem(server.http.post("/v1/streams", json={"model": "late"})).status == 404
        held_loads.release()
        assert [done.result().json()["state"] for done in loads] == ["ready", "ready"]
    assert held_loads.most_at_once == 1
    assert server.http.post("/v1/streams", json={"model": "late"}).is_success


def test_loads_and_unloads_of_one_model_wait_for_each_other(server: Running, held_loads: HeldLoads) -> None:
    with ThreadPoolExecutor() as pool:
        first = pool.submit(load, server, "tiny")
        eventually(lambda: held_loads.started == 1)
        others = []
        for act in (unload, load):
            others.append(pool.submit(act, server, "tiny"))
            eventually(lambda: len(server.tasks("Models._load", "Models._unload")) == 1 + len(others))
        assert unload(server, "other").json()["state"] == "unloaded", "another model doesn't wait"
        held_loads.release()
        assert first.result().json()["state"] == "ready"
        assert [other.result().json()["state"] for other in others] == ["unloaded", "ready"]
    assert held_loads.started == 2


def test_a_load_is_finished_after_its_client_has_left(server: Running, held_loads: HeldLoads, folder: Path) -> None:
    tiny_bundle(folder / "tiny", version="2.0.0")
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port or 80)) as client:
        client.sendall(b"POST /v1/models/tiny/load HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n" % url.netloc)
        eventually(lambda: held_loads.started == 1)
    held_loads.release()
    eventually(lambda: server.http.get("/v1/models/tiny").json()["version"] == "2.0.0")


# -- unloading ---------------------------------------------------------------------------------------------------------


def test_streams_of_an_unloaded_model_run_on_and_new_ones_are_refused(server: Running) -> None:
    engine = engine_of(server, "tiny")
    server.http.post("/v1/streams", json={"id": "rest", "model": "tiny"})
    with undisturbed(server, "other") as go_on, undisturbed(server, "tiny") as go_on_too, undisturbed_frames(server):
        answer = unload(server, "tiny").json()
        assert (answer["state"], answer["streams"], answer["draining"]) == ("draining", 2, 2)
        go_on()
        go_on_too()
        refused = problem(server.http.post("/v1/streams", json={"model": "tiny"}))
        assert refused.status == 404
        assert "there are: other" in refused.detail
        with server.connect("late", Hello(model="other")) as talk:
            assert frame(talk) == 0
        with server.connect("refused") as talk:
            talk.send(Hello(model="tiny"))
            assert talk.close_code() == CloseCode.NOT_FOUND
        assert problem(unload(server, "tiny")).status == 404
    eventually(lambda: is_closed(engine))
    eventually(lambda: server.http.get("/v1/models/tiny").status_code == 404)
    assert [model["name"] for model in server.http.get("/v1/models").json()] == ["other"]
    assert load(server, "tiny").json()["state"] == "ready"


@contextmanager
def undisturbed_frames(server: Running) -> Iterator[None]:
    assert server.frame("rest").json()["key_age"] == 0
    yield
    assert server.frame("rest").json()["key_age"] == 1
    server.http.delete("/v1/streams/rest")


def test_a_forced_unload_closes_the_models_streams_and_no_others(server: Running, folder: Path) -> None:
    server.http.post("/v1/streams", json={"id": "rest", "model": "tiny"})
    with undisturbed(server, "other") as go_on, server.connect("old", Hello(model="tiny")) as old:
        frame(old)
        tiny_bundle(folder / "tiny", version="2.0.0")
        load(server, "tiny")
        with server.connect("new", Hello(model="tiny")) as new:
            frame(new)
            answer = unload(server, "tiny", force="true").json()
            assert (answer["state"], answer["streams"]) == ("unloaded", 0)
            for talk in (old, new):
                error = talk.error()
                assert error.fatal
                assert error.problem.detail == "model 'tiny' was unloaded"
                assert talk.close_code() == CloseCode.STREAM_GONE
            go_on()
    assert server.frame("rest").status_code == 404


def test_an_unloaded_model_is_freed_after_the_server_has_looked_for_idle_streams(folder: Path, start: Starter) -> None:
    server = start(models=folder, model_control=True, idle_timeout=1.0)
    engine = weakref.ref(engine_of(server, "tiny"))
    server.http.post("/v1/streams", json={"id": "idle", "model": "tiny"})
    with server.connect("busy", Hello(model="tiny")) as talk:

        def is_busy_alone() -> bool:
            frame(talk)
            return [stream["id"] for stream in server.http.get("/v1/streams").json()] == ["busy"]

        eventually(is_busy_alone)
        unload(server, "tiny", force="true")
    eventually(lambda: is_freed(engine))


def test_streams_without_a_model_are_refused_while_the_default_is_unloaded(server: Running) -> None:
    unload(server, "other")
    refused = problem(server.http.post("/v1/streams", json={}))
    assert refused.status == 404
    assert refused.detail == "the default model 'other' is not loaded: name another; there are: tiny"
    unload(server, "tiny")
    assert "there are: none" in problem(server.http.post("/v1/streams", json={})).detail
    assert server.http.get("/readyz").is_success
    load(server, "other")
    assert server.http.post("/v1/streams", json={}).json()["model"] == "other"


# -- names and permissions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["nosuch", "..", "../secret", "..%2Fsecret", "%2e%2e%2fsecret", "%2Fsecret", "secret%00", "tiny%2F..%2Ftiny", "."],
)
def test_a_name_is_never_used_as_a_path(server: Running, folder: Path, name: str) -> None:
    tiny_bundle(folder.parent / "secret", name="secret")
    for way in (f"/v1/models/{name}/load", f"/v2/repository/models/{name}/load"):
        url = httpx.URL(server.url).copy_with(raw_path=way.encode())
        response = server.http.send(httpx.Request("POST", url))
        assert problem(response).status in (404, 405)
        assert str(folder) not in response.text
    assert {entry["name"] for entry in server.http.post("/v2/repository/index").json()} == {"other", "tiny"}


def test_a_bundle_is_found_by_its_name_unless_two_have_it(server: Running, folder: Path) -> None:
    tiny_bundle(folder / "street-v3", name="street")
    assert load(server, "street").json()["name"] == "street"
    assert problem(load(server, "street-v3")).status == 404
    tiny_bundle(folder / "street-v4", name="street")
    refused = problem(load(server, "street"))
    assert (refused.status, refused.detail) == (
        422,
        "street-v3 and street-v4 are both named 'street': rename or move one",
    )


def test_a_server_without_control_keeps_its_models(folder: Path, start: Starter) -> None:
    server = start(models=folder)
    for way in ("/v1/models/tiny", "/v2/repository/models/tiny"):
        for act in ("load", "unload"):
            refused = problem(server.http.post(f"{way}/{act}"))
            assert refused.status == 403
            assert "--model-control" in refused.detail
    assert engine_of(server, "tiny")


def test_keys_need_the_scope_models_to_load_and_unload(folder: Path, start: Starter, tmp_path: Path) -> None:
    (viewer, viewer_line), (operator, operator_line) = new_key("viewer", "stream"), new_key("operator", "models")
    (tmp_path / "keys.txt").write_text(f"{viewer_line}\n{operator_line}\n")
    server = start(models=folder, keys=tmp_path / "keys.txt")
    for way in ("/v1/models/tiny", "/v2/repository/models/tiny"):
        for act in ("unload", "load"):
            assert server.http.post(f"{way}/{act}").status_code == 401
            assert server.http.post(f"{way}/{act}", headers={"X-API-Key": viewer}).status_code == 403
            assert server.http.post(f"{way}/{act}", headers={"X-API-Key": operator}).status_code == 200
    assert server.http.get("/v1/models/tiny", headers={"X-API-Key": operator}).status_code == 403
    assert server.http.get("/v1/models/load", headers={"X-API-Key": viewer}).status_code == 404
    assert server.http.post("/v2/repository/index", headers={"X-API-Key": viewer}).status_code == 200


def test_a_draining_server_finishes_the_present_load_and_refuses_others(server: Running, held_loads: HeldLoads) -> None:
    http = httpx.Client(base_url=server.url, timeout=30)
    with ThreadPoolExecutor() as pool:
        begun = pool.submit(load, server, "tiny")
        eventually(lambda: held_loads.started == 1)
        waiting = pool.submit(load, server, "tiny")
        eventually(lambda: len(server.tasks("Models._load")) == 2)
        server.server.should_exit = True
        eventually(lambda: http.get("/readyz").status_code == 503)
        assert http.post("/v1/models/other/load").status_code == 503
        held_loads.release()
        assert begun.result().json()["state"] == "ready"
        assert problem(waiting.result()).status == 503
    http.close()


# -- limits and metrics ------------------------------------------------------------------------------------------------


def test_a_models_limit_of_streams_counts_those_of_all_versions(folder: Path, start: Starter) -> None:
    server = start(models=folder, model_limit={"tiny": 2}, model_control=True)
    for id_ in ("a", "b"):
        assert server.http.post("/v1/streams", json={"id": id_, "model": "tiny"}).is_success
    refused = problem(server.http.post("/v1/streams", json={"model": "tiny"}))
    assert (refused.status, refused.detail) == (429, "model 'tiny' has its 2 streams: delete one, or try again later")
    assert server.http.post("/v1/streams", json={"model": "other"}).is_success
    load(server, "tiny")
    assert server.http.post("/v1/streams", json={"model": "tiny"}).status_code == 429, "older versions' streams count"
    server.http.delete("/v1/streams/a")
    assert server.http.post("/v1/streams", json={"model": "tiny"}).is_success


def test_a_limit_of_an_unknown_model_is_refused_without_model_control(folder: Path) -> None:
    with pytest.raises(BundleError, match="no model 'nosuch'; there are: other, tiny"):
        Server(Settings(models=folder, model_limit={"nosuch": 2}))


def test_metrics_count_models_and_loads(server: Running, folder: Path) -> None:
    server.http.post("/v1/streams", json={"model": "tiny"})
    load(server, "tiny")
    damage(folder, "other")
    load(server, "other")
    load(server, "nosuch")
    text = server.http.get("/metrics").text
    for line in (
        'keywarp_models{state="ready"} 2.0',
        'keywarp_models{state="draining"} 1.0',
        'keywarp_models{state="failed"} 1.0',
        'keywarp_models{state="loading"} 0.0',
        'keywarp_model_loads_total{outcome="loaded"} 1.0',
        'keywarp_model_loads_total{outcome="failed"} 1.0',
    ):
        assert line in text
