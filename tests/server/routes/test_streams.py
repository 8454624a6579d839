"""The HTTP interface, on a real server."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keywarp.client import ProcessedFrame
from keywarp.engines import BundleError
from keywarp.protocol import CloseCode, Hello, Problem, Result, StreamInfo
from keywarp.server.process import Server
from keywarp.server.settings import Settings
from tests.server.conftest import LANES, Running, Starter, eventually
from tests.server.media import GREEN, jpeg, textured
from tests.tiny_bundle import tiny_bundle


def problem(response: object) -> Problem:
    headers, text = response.headers, response.text  # type: ignore[attr-defined]
    assert headers["content-type"] == "application/problem+json"
    found = Problem.model_validate_json(text)
    assert found.status == response.status_code  # type: ignore[attr-defined]
    return found


def create(server: Running, **fields: object) -> StreamInfo:
    response = server.http.post("/v1/streams", json=fields)
    assert response.status_code == 201, response.text
    info = StreamInfo.model_validate_json(response.text)
    assert response.headers["location"] == f"/v1/streams/{info.id}"
    return info


def test_the_server_reports_its_health_and_its_models(server: Running) -> None:
    assert server.http.get("/healthz").json() == {"status": "ok"}
    assert server.http.get("/readyz").json() == {"status": "ready"}
    [model] = server.http.get("/v1/models").json()
    assert (model["name"], model["key_interval"], model["backend"]) == ("tiny", 10, "onnxruntime")
    assert model["devices"] == ["CPU"]
    assert server.http.get("/v1/models/tiny").json() == model


def test_a_stream_is_created_fed_shown_and_deleted(server: Running) -> None:
    stream = create(server, interval=2)
    assert stream.max_age is None
    results = [
        Result.model_validate_json(server.frame(stream.id, jpeg(GREEN), id=f"f{i}", timestamp=f"{i / 4}").text)
        for i in range(4)
    ]
    assert [(r.frame, r.id, r.timestamp) for r in results] == [(i, f"f{i}", i / 4) for i in range(4)]
    assert [(r.kind, r.key_age, r.key_age_seconds) for r in results] == [("key", 0, 0.0), ("propagated", 1, 0.25)] * 2
    first = results[0]
    assert (first.width, first.height) == (128, 64)
    assert first.segmentation
    assert [(r.name, r.area) for r in first.segmentation.regions] == [("green", 1.0)]
    assert min(first.timings.decode, first.timings.queue, first.timings.inference, first.timings.postprocess) > 0

    info = StreamInfo.model_validate(server.http.get(f"/v1/streams/{stream.id}").json())
    assert (info.model, info.interval, info.frames, info.key_frames, info.errors) == ("tiny", 2, 4, 2, 0)
    assert stream.id in [s["id"] for s in server.http.get("/v1/streams").json()]
    assert server.http.delete(f"/v1/streams/{stream.id}").status_code == 204
    assert problem(server.http.get(f"/v1/streams/{stream.id}")).status == 404
    assert problem(server.frame(stream.id)).status == 404


def test_an_adaptive_stream_is_created_and_shown(server: Running) -> None:
    stream = create(server, schedule="adaptive", interval=4)
    assert (stream.schedule, stream.interval, stream.max_interval) == ("adaptive", 4, 12)
    results = [Result.model_validate_json(server.frame(stream.id, textured(seed)).text) for seed in (0, 0, 1)]
    assert [r.reason for r in results] == ["start", None, "cut"]
    assert create(server, schedule="adaptive", interval=500).max_interval == 1000
    assert create(server).schedule == "fixed"


def test_propagated_results_say_how_far_they_can_be_trusted(server: Running) -> None:
    stream = create(server, reliability="map", interval=10)
    still, moved = textured(0), textured(1)
    results = [Result.model_validate_json(server.frame(stream.id, image).text) for image in (still, still, moved)]
    maps = [ProcessedFrame(result).reliability_map for result in results]
    assert [(r.motion, r.reliability) for r in results[:2]] == [(None, None), ("network", 1.0)]
    assert results[2].reliability is not None
    assert 0 < results[2].reliability < 0.5
    assert maps[0] is None
    assert maps[1] is not None
    assert maps[2] is not None
    assert (maps[1].shape, maps[1].min()) == ((4, 8), 1.0)
    assert maps[2].mean() == pytest.approx(results[2].reliability, abs=0.01)
    info = StreamInfo.model_validate(server.http.get(f"/v1/streams/{stream.id}").json())
    assert info.live
    assert info.live.reliability == pytest.approx((1 + results[2].reliability) / 2, abs=1e-4)
    assert 'keywarp_reliability_bucket{le="1.0",model="tiny"} ' in server.http.get("/metrics").text


def test_the_servers_schedule_is_the_default_of_streams(start: Starter) -> None:
    server = start(schedule="adaptive")
    assert create(server).max_interval == 30
    assert create(server, schedule="fixed").max_interval is None


def test_single_frames_become_key_frames_when_the_key_frame_is_too_old(server: Running) -> None:
    stream = create(server, max_age=2.5)
    assert (stream.mode, stream.max_age) == ("lossless", 2.5)
    # The fifth frame has no timestamp, and before the sixth the source starts again.
    times = ("0", "1.5", "2.5", "2.6", None, "0.1")
    responses = [server.frame(stream.id, timestamp=time) if time else server.frame(stream.id) for time in times]
    results = [Result.model_validate_json(response.text) for response in responses]
    assert [r.reason for r in results] == ["start", None, None, "age", None, None]
    info = StreamInfo.model_validate(server.http.get(f"/v1/streams/{stream.id}").json())
    assert info.live
    assert info.live.key_share == 2 / 6
    assert info.live.key_age_seconds == 2.5
    text = server.http.get("/metrics").text
    for metric in ('keywarp_key_frames_total{model="tiny",reason="age"} 1.0', "keywarp_key_age_seconds_bucket"):
        assert metric in text


def test_the_mode_latest_has_the_servers_limit_of_the_key_age_and_lossless_has_none(start: Starter) -> None:
    assert create(start(), mode="latest").max_age == 5
    server = start(max_age=1.5)
    assert create(server, mode="latest").max_age == 1.5
    assert create(server, mode="latest", max_age=7).max_age == 7
    assert create(server).max_age is None


def test_a_bad_frame_is_answered_with_an_error_and_the_next_becomes_a_key_frame(server: Running) -> None:
    stream = create(server).id
    assert [server.frame(stream).json()["kind"] for _ in range(2)] == ["key", "propagated"]
    good = jpeg()
    assert problem(server.frame(stream, good[: len(good) // 2])).status == 422
    assert problem(server.frame(stream, b"a text file")).status == 415
    assert problem(server.frame(stream, bytes(17 * 2**20))).status == 413
    after = server.frame(stream).json()
    assert (after["frame"], after["kind"]) == (4, "key")
    assert server.http.get(f"/v1/streams/{stream}").json()["errors"] == 2  # the large one was never read


def test_a_body_without_a_length_is_refused_at_the_limit(server: Running) -> None:
    stream = create(server).id
    response = server.http.post(f"/v1/streams/{stream}/frames", content=(bytes(2**20) for _ in range(17)))
    assert problem(response).status == 413


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "detail"),
    [
        ("GET", "/nothing", None, 404, ""),
        ("PUT", "/v1/streams", None, 405, ""),
        ("GET", "/v1/models/nope", None, 404, "there is no model 'nope'; there are: tiny"),
        ("POST", "/v1/streams", b'{"model": "nope"}', 404, "there is no model 'nope'; there are: tiny"),
        ("POST", "/v1/streams", b'{"interval": 0}', 422, "interval"),
        ("POST", "/v1/streams", b'{"schedule": "daily"}', 422, "schedule"),
        ("POST", "/v1/streams", b'{"schedule": "adaptive", "max_interval": 1001}', 422, "max_interval"),
        ("POST", "/v1/streams", b'{"max_interval": 20}', 400, "needs the schedule `adaptive`"),
        ("POST", "/v1/streams", b'{"max_interval": 20, "mode": "latest"}', 400, "needs the schedule `adaptive`"),
        ("POST", "/v1/streams", b'{"max_age": 0}', 422, "max_age"),
        ("POST", "/v1/streams", b'{"max_age": 90000}', 422, "max_age"),
        (
            "POST",
            "/v1/streams",
            b'{"schedule": "adaptive", "max_interval": 9}',
            400,
            "9 is less than the interval, 10",
        ),
        ("POST", "/v1/streams", b'{"id": "../etc"}', 422, "id"),
        ("POST", "/v1/streams", b'{"colour": "red"}', 422, "colour"),
        ("POST", "/v1/streams", b"{", 422, ""),
        ("GET", "/v1/streams/nope", None, 404, "there is no stream 'nope'"),
        ("DELETE", "/v1/streams/nope", None, 404, "there is no stream 'nope'"),
        ("POST", "/v1/streams/nope/frames", b"", 404, "there is no stream 'nope'"),
        ("POST", "/v1/streams/nope/frames?timestamp=soon", b"", 422, "timestamp"),
    ],
)
def test_errors_are_problem_details(
    server: Running, method: str, path: str, body: bytes | None, status: int, detail: str
) -> None:
    headers = {"content-type": "application/json"}
    found = problem(server.http.request(method, path, content=body, headers=headers))
    assert found.status == status
    assert detail in found.detail
    assert "/" not in found.detail


def test_internal_errors_reveal_nothing_about_the_server(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = create(server).id

    def fail(*_: object) -> None:
        raise RuntimeError("/secret/path")

    with monkeypatch.context() as patch:
        patch.setattr(server.service.streams[stream], "submit", fail)
        found = problem(server.frame(stream))
    assert found.status == 500
    assert "secret" not in found.detail
    with monkeypatch.context() as patch:
        patch.setattr(server.service.streams[stream].engine, "key", fail)
        patch.setattr(server.service.streams[stream].engine, "propagate", fail)
        found = problem(server.frame(stream))
    assert found.status == 500
    assert "secret" not in found.detail
    assert server.frame(stream).json()["kind"] == "key"


def test_single_frames_take_turns_and_keep_connections_out(start: Starter) -> None:
    server = start()
    stream = create(server).id
    release = server.hold_device()
    device = server.service.devices[0].executor
    with ThreadPoolExecutor(2) as pool:
        frames = [pool.submit(server.frame, stream) for _ in range(2)]
        eventually(lambda: device.depth == LANES + 1)
        with server.connect(stream) as talk:
            talk.send(Hello())
            assert talk.close_code() == CloseCode.STREAM_BUSY
        assert device.depth == LANES + 1  # the second frame waits for its turn
        release()
        results = sorted((frame.result().json() for frame in frames), key=lambda result: int(result["frame"]))
    assert [(result["frame"], result["kind"]) for result in results] == [(0, "key"), (1, "propagated")]


def test_a_draining_server_finishes_single_frames(start: Starter) -> None:
    server = start()
    stream = create(server).id
    release = server.hold_device()

    async def drain() -> None:
        draining = asyncio.create_task(server.service.drain())
        await asyncio.sleep(0.05)
        assert not draining.done()
        release()
        await draining

    with ThreadPoolExecutor(1) as pool:
        frame = pool.submit(server.frame, stream)
        eventually(lambda: server.service.devices[0].executor.depth == LANES + 1)
        server.run(drain())
        assert frame.result().json()["kind"] == "key"


def test_an_id_can_be_taken_once(server: Running) -> None:
    stream = create(server, id="front-door.1")
    assert problem(server.http.post("/v1/streams", json={"id": stream.id})).status == 409


def test_a_stream_is_created_under_the_id_of_its_path(server: Running) -> None:
    created = server.http.put("/v1/streams/gate-7", json={"interval": 3})
    assert (created.status_code, created.headers["location"]) == (201, "/v1/streams/gate-7")
    assert (created.json()["id"], created.json()["interval"]) == ("gate-7", 3)
    assert problem(server.http.put("/v1/streams/gate-7", json={})).status == 409
    assert server.http.put("/v1/streams/gate-8", json={"id": "gate-8"}).status_code == 201
    assert "'other'" in str(problem(server.http.put("/v1/streams/gate-9", json={"id": "other"})).detail)
    assert server.http.put("/v1/streams/bad%20id", json={}).status_code == 422
    for name in ("gate-7", "gate-8"):
        server.http.delete(f"/v1/streams/{name}")


def test_a_stream_that_a_connection_feeds_takes_no_single_frames(server: Running) -> None:
    stream = create(server).id
    with server.connect(stream, Hello()):
        assert problem(server.frame(stream)).status == 409
    eventually(lambda: server.frame(stream).status_code == 200)


def test_streams_beyond_the_limit_are_refused(start: Starter) -> None:
    server = start(max_streams=1)
    create(server, id="one")
    refused = server.http.post("/v1/streams", json={})
    assert problem(refused).status == 429
    assert int(refused.headers["retry-after"]) > 0
    server.http.delete("/v1/streams/one")
    create(server)


def test_idle_streams_expire(start: Starter) -> None:
    server = start(idle_timeout=0.2)
    stream = create(server).id
    eventually(lambda: server.http.get(f"/v1/streams/{stream}").status_code == 404)


def test_metrics_count_frames_errors_and_stages(start: Starter) -> None:
    server = start()
    stream = create(server).id
    for body in (jpeg(), jpeg(), b"a text file"):
        server.frame(stream, body)
    text = server.http.get("/metrics").text
    for line in (
        'keywarp_frames_total{kind="key",model="tiny"} 1.0',
        'keywarp_frames_total{kind="propagated",model="tiny"} 1.0',
        'keywarp_key_frames_total{model="tiny",reason="start"} 1.0',
        'keywarp_frame_errors_total{reason="not_an_image"} 1.0',
        'keywarp_stage_seconds_count{stage="decode"} 2.0',
        'keywarp_stage_seconds_count{stage="inference"} 2.0',
        "keywarp_streams 1.0",
        "keywarp_queue_depth 0.0",
        'keywarp_device_streams{device="CPU"} 1.0',
    ):
        assert line in text.splitlines()
    assert stream not in text


def test_the_openapi_schema_documents_bodies_and_refusals(server: Running) -> None:
    paths = server.http.get("/openapi.json").json()["paths"]
    assert set(paths["/v1/streams/{stream_id}/frames"]["post"]["responses"]) >= {"200", "404", "409", "413", "415"}
    video = paths["/v1/videos"]["post"]
    assert set(video["responses"]) >= {"200", "404", "413", "415", "422", "429"}
    assert "application/x-ndjson" in video["responses"]["200"]["content"]
    assert "video/mp4" in video["requestBody"]["content"]


def test_one_of_several_models_is_the_default(start: Starter, tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "b", name="beta")
    tiny_bundle(tmp_path / "a", name="alpha")
    server = start(models=tmp_path, default_model="beta")
    assert [m["name"] for m in server.http.get("/v1/models").json()] == ["alpha", "beta"]
    assert create(server).model == "beta"
    assert create(server, model="alpha").model == "alpha"


def test_unusable_bundles_are_refused_before_the_server_starts(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no bundle in"):
        Server(Settings(models=tmp_path))
    graph = tiny_bundle(tmp_path / "tiny").path / "head.onnx"
    with pytest.raises(BundleError, match="no model 'other'; there are: tiny"):
        Server(Settings(models=tmp_path, default_model="other"))
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match=r"head\.onnx"):
        Server(Settings(models=tmp_path))


def test_the_server_stops_if_a_model_cannot_be_loaded(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such device")

    monkeypatch.setattr("keywarp.server.models.replicas.Engine", fail)
    server = Server(Settings(models=models, port=0))
    server.run()
    assert str(server.service.failure) == "no such device"
