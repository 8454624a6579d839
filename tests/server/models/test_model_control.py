"""Models that come and go on a real server, while streams go on."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferenceServerException

from keywarp.engines import BundleError, Engine
from keywarp.protocol import CloseCode, Hello
from keywarp.server import Server, Settings
from keywarp.server.models import replicas
from keywarp.server.security.keys import new_key
from tests.server.conftest import Conversation, Running, Starter, eventually
from tests.server.media import GREEN, RED, jpeg
from tests.server.routes.test_open_inference import image, kind
from tests.server.routes.test_streams import problem
from tests.tiny_bundle import tiny_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the models `other`, which is the default, and `tiny`."""
    path = tmp_path / "models"
    tiny_bundle(path / "other", name="other")
    tiny_bundle(path / "tiny")
    return path


@pytest.fixture
def server(folder: Path, start: Starter) -> Running:
    return start(models=folder, model_control=True)


@pytest.fixture
def triton(server: Running) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


class Loading:
    """Compiling that waits until it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.at_once = self.most_at_once = 0
        self._go_on = threading.Event()

    def release(self) -> None:
        self._go_on.set()

    def wrap(self, open_engine: Callable[..., Engine]) -> Callable[..., Engine]:
        def wrapped(*arguments: object) -> Engine:
            self.begun += 1
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
            assert self._go_on.wait(30)
            try:
                return open_engine(*arguments)
            finally:
                self.at_once -= 1

        return wrapped


@pytest.fixture
def loading(server: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loading]:  # noqa: ARG001 - it has started
    held = Loading()
    monkeypatch.setattr(replicas, "open_engine", held.wrap(replicas.open_engine))
    yield held
    held.release()


def load(server: Running, name: str) -> httpx.Response:
    return server.http.post(f"/v1/models/{name}/load")


def unload(server: Running, name: str, **query: Any) -> httpx.Response:
    return server.http.post(f"/v1/models/{name}/unload", params=query)


def damage(folder: Path, name: str) -> None:
    (folder / name / "head.onnx").write_bytes(b"\0")


def engine_of(server: Running, name: str) -> Engine:
    return server.service.models[name]


@contextmanager
def undisturbed(server: Running, model: str) -> Iterator[Callable[[], None]]:
    """A stream that goes on whatever happens; the callable sends a frame and expects it to be propagated."""
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


def frame(talk: Conversation, *, width: int = 128) -> int:
    talk.frame(jpeg(RED, width=width))
    return talk.result().key_age


# -- switching ---------------------------------------------------------------------------------------------------------


def test_new_streams_get_the_new_version_and_old_ones_keep_theirs(server: Running, folder: Path) -> None:
    old = engine_of(server, "tiny")
    [programs] = [future.result() for future in old._programs.values()]
    program = weakref.ref(programs.key)
    del programs
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
        assert server.service.models.count()["draining"] == 1
    eventually(lambda: server.service.models.count()["draining"] == 0)
    gc.collect()
    assert program() is None, "the old version is freed"
    assert server.http.get("/v1/models/tiny").json()["streams"] == 0


def test_a_version_without_streams_is_freed_at_once(server: Running) -> None:
    before = engine_of(server, "tiny")
    answer = load(server, "tiny").json()
    assert (answer["draining"], before._programs, before._closed) == (0, {}, True)


@pytest.mark.parametrize("fault", ["damaged", "manifest", "runtime"])
def test_a_model_that_cannot_be_loaded_leaves_the_old_one(
    server: Running, folder: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = {"damaged": "tiny/head.onnx doesn't match", "manifest": "not a valid manifest", "runtime": "log says why"}
    if fault == "damaged":
        damage(folder, "tiny")
    elif fault == "manifest":
        (folder / "tiny" / "bundle.json").write_text("{}")
    else:
        monkeypatch.setattr(replicas, "_warm_up", lambda _: 1 / 0)
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


@contextmanager
def undisturbed_sequence(server: Running) -> Iterator[None]:
    with InferenceServerClient(server.url.removeprefix("http://")) as client:
        assert kind(client.infer("tiny", [image(jpeg())], sequence_id=1, sequence_start=True)) == ("key", 0)
        yield
        assert kind(client.infer("tiny", [image(jpeg())], sequence_id=1, sequence_end=True)) == ("propagated", 1)


def test_streams_go_on_while_a_model_is_loaded(server: Running, loading: Loading, folder: Path) -> None:
    tiny_bundle(folder / "tiny", version="2.0.0")
    tiny_bundle(folder / "late", name="late")
    with undisturbed(server, "tiny") as go_on, ThreadPoolExecutor() as pool:
        loads = [pool.submit(load, server, name) for name in ("tiny", "late")]
        eventually(lambda: server.service.models.count()["loading"] == 2)
        for _ in range(20):
            go_on()
        with server.connect("new", Hello(model="tiny")) as talk:
            assert talk.ready.model.version == "1.0.0"
        assert server.http.get("/readyz").is_success
        states = {model["name"]: model["state"] for model in server.http.get("/v1/models").json()}
        assert states == {"other": "ready", "tiny": "ready", "late": "loading"}
        assert problem(server.http.post("/v1/streams", json={"model": "late"})).status == 404
        loading.release()
        assert [done.result().json()["state"] for done in loads] == ["ready", "ready"]
    assert loading.most_at_once == 1
    assert server.http.post("/v1/streams", json={"model": "late"}).is_success


def test_loads_and_unloads_of_a_model_have_their_turns(server: Running, loading: Loading) -> None:
    with ThreadPoolExecutor() as pool:
        first = pool.submit(load, server, "tiny")
        eventually(lambda: loading.begun == 1)
        turn = server.service.models._models["tiny"].turn
        others = []
        for act in (unload, load):
            others.append(pool.submit(act, server, "tiny"))
            eventually(lambda: len(turn._waiters or ()) == len(others))
        assert unload(server, "other").json()["state"] == "unloaded", "another model's turn is another"
        loading.release()
        assert first.result().json()["state"] == "ready"
        assert [other.result().json()["state"] for other in others] == ["unloaded", "ready"]
    assert loading.begun == 2


def test_a_load_is_finished_without_the_client_who_wanted_it(server: Running, loading: Loading, folder: Path) -> None:
    tiny_bundle(folder / "tiny", version="2.0.0")
    with pytest.raises(httpx.ReadTimeout):
        server.http.post("/v1/models/tiny/load", timeout=0.5)
    assert loading.begun == 1
    loading.release()
    eventually(lambda: server.http.get("/v1/models/tiny").json()["version"] == "2.0.0")


# -- unloading ---------------------------------------------------------------------------------------------------------


def test_streams_of_an_unloaded_model_go_on_and_new_ones_are_refused(server: Running) -> None:
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
            talk.say(Hello(model="tiny"))
            assert talk.closed() == CloseCode.NOT_FOUND
        assert problem(unload(server, "tiny")).status == 404
    eventually(lambda: engine._closed)
    assert server.http.get("/v1/models/tiny").status_code == 404
    assert [model["name"] for model in server.http.get("/v1/models").json()] == ["other"]
    assert load(server, "tiny").json()["state"] == "ready"


@contextmanager
def undisturbed_frames(server: Running) -> Iterator[None]:
    assert server.frame("rest").json()["key_age"] == 0
    yield
    assert server.frame("rest").json()["key_age"] == 1
    server.http.delete("/v1/streams/rest")


def test_force_closes_the_streams_of_a_model_and_no_others(server: Running, folder: Path) -> None:
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
                assert talk.closed() == CloseCode.STREAM_GONE
            go_on()
    assert server.frame("rest").status_code == 404


def test_streams_that_name_no_model_are_told_when_the_default_is_unloaded(server: Running) -> None:
    unload(server, "other")
    refused = problem(server.http.post("/v1/streams", json={}))
    assert refused.status == 404
    assert refused.detail == "the default model 'other' is not loaded: name another; there are: tiny"
    unload(server, "tiny")
    assert "there are: none" in problem(server.http.post("/v1/streams", json={})).detail
    assert server.http.get("/readyz").is_success
    load(server, "other")
    assert server.http.post("/v1/streams", json={}).json()["model"] == "other"


# -- what may be loaded, and by whom -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["nosuch", "..", "../secret", "..%2Fsecret", "%2e%2e%2fsecret", "%2Fsecret", "secret%00", "tiny%2F..%2Ftiny", "."],
)
def test_a_name_is_no_path(server: Running, folder: Path, name: str) -> None:
    tiny_bundle(folder.parent / "secret", name="secret")
    for way in (f"/v1/models/{name}/load", f"/v2/repository/models/{name}/load"):
        url = httpx.URL(server.url).copy_with(raw_path=way.encode())
        response = server.http.send(httpx.Request("POST", url))
        assert problem(response).status in (404, 405)
        assert str(folder) not in response.text
    assert {*server.service.models._models} == {"other", "tiny"}


def test_a_bundle_is_found_by_its_name_and_only_one(server: Running, folder: Path) -> None:
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


def test_keys_for_models_are_of_a_scope_of_their_own(folder: Path, start: Starter, tmp_path: Path) -> None:
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


def test_a_stopping_server_loads_nothing_and_finishes_what_it_began(server: Running, loading: Loading) -> None:
    http = httpx.Client(base_url=server.url, timeout=30)
    with ThreadPoolExecutor() as pool:
        begun = pool.submit(load, server, "tiny")
        eventually(lambda: loading.begun == 1)
        waiting = pool.submit(load, server, "tiny")
        turn = server.service.models._models["tiny"].turn
        eventually(lambda: bool(turn._waiters))
        server.server.should_exit = True
        eventually(lambda: http.get("/readyz").status_code == 503)
        assert http.post("/v1/models/other/load").status_code == 503
        loading.release()
        assert begun.result().json()["state"] == "ready"
        assert problem(waiting.result()).status == 503
    http.close()


# -- limits and metrics ------------------------------------------------------------------------------------------------


def test_a_model_has_a_limit_of_its_own(folder: Path, start: Starter) -> None:
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


def test_a_limit_of_a_model_that_cannot_come_is_refused(folder: Path) -> None:
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


# -- Triton's client ---------------------------------------------------------------------------------------------------


def index(triton: InferenceServerClient) -> dict[str, tuple[str, str]]:
    return {entry["name"]: (entry["state"], entry["reason"]) for entry in triton.get_model_repository_index()}


def test_tritons_client_loads_and_unloads(triton: InferenceServerClient, folder: Path) -> None:
    assert index(triton) == {"other": ("READY", ""), "tiny": ("READY", "")}
    triton.unload_model("tiny")
    assert not triton.is_model_ready("tiny")
    assert triton.is_server_ready()
    assert index(triton)["tiny"] == ("UNAVAILABLE", "unloaded")
    with pytest.raises(InferenceServerException, match="there is no model 'tiny'"):
        triton.infer("tiny", [image(jpeg())])
    tiny_bundle(folder / "late", name="late")
    assert index(triton)["late"] == ("UNAVAILABLE", "unloaded")
    for name in ("tiny", "late"):
        triton.load_model(name)
        assert triton.is_model_ready(name)
        assert (triton.infer(name, [image(jpeg(RED))]).as_numpy("labels") == np.uint8(1)).all()
    with pytest.raises(InferenceServerException, match="there is no bundle 'nosuch'"):
        triton.load_model("nosuch")
    with pytest.raises(InferenceServerException, match="'nosuch' is not loaded"):
        triton.unload_model("nosuch")
    with pytest.raises(InferenceServerException, match="aren't supported"):
        triton.load_model("tiny", config="{}")


def test_tritons_client_sees_why_a_model_is_not_there(triton: InferenceServerClient, folder: Path) -> None:
    triton.unload_model("tiny")
    damage(folder, "tiny")
    with pytest.raises(InferenceServerException, match="can't be loaded"):
        triton.load_model("tiny")
    state, reason = index(triton)["tiny"]
    assert (state, "tiny/head.onnx doesn't match" in reason) == ("UNAVAILABLE", True)
    triton.unload_model("tiny")
    assert index(triton)["tiny"] == ("UNAVAILABLE", "unloaded")


def test_the_index_can_be_of_ready_models_only(server: Running, loading: Loading, folder: Path) -> None:
    tiny_bundle(folder / "late", name="late")
    with ThreadPoolExecutor() as pool, InferenceServerClient(server.url.removeprefix("http://")) as client:
        late = pool.submit(load, server, "late")
        eventually(lambda: index(client)["late"] == ("LOADING", ""))
        ready = server.http.post("/v2/repository/index", json={"ready": True}).json()
        assert [entry["name"] for entry in ready] == ["other", "tiny"]
        loading.release()
        assert late.result().is_success
    assert problem(server.http.post("/v2/repository/index", content=b"[")).status == 400


def test_a_sequence_keeps_its_version(triton: InferenceServerClient, folder: Path) -> None:
    def infer(version: str = "", **options: Any) -> tuple[str, str, int]:
        result = triton.infer("tiny", [image(jpeg())], model_version=version, **options)
        return result.get_response()["model_version"], *kind(result)

    assert infer(sequence_id=1, sequence_start=True) == ("1.0.0", "key", 0)
    tiny_bundle(folder / "tiny", version="2.0.0")
    triton.load_model("tiny")
    assert infer(sequence_id=1) == ("1.0.0", "propagated", 1)
    assert infer(sequence_id=2, sequence_start=True) == ("2.0.0", "key", 0)
    assert infer("1.0.0", sequence_id=1) == ("1.0.0", "propagated", 2)
    for version, sequence, start in (("2.0.0", 1, False), ("1.0.0", 2, False), ("1.0.0", 3, True)):
        with pytest.raises(InferenceServerException, match="has the version"):
            infer(version, sequence_id=sequence, sequence_start=start)
    triton.unload_model("tiny")
    assert index(triton)["tiny"] == ("UNLOADING", "2 streams continue")
    assert infer(sequence_id=1, sequence_end=True) == ("1.0.0", "propagated", 3)
    triton.unload_model("tiny", query_params={"force": "true"})
    with pytest.raises(InferenceServerException, match="there is no model 'tiny'"):
        infer(sequence_id=2)
    assert index(triton)["tiny"] == ("UNAVAILABLE", "unloaded")
