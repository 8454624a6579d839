import json
import socket
from datetime import UTC, datetime

import numpy as np
import pytest
import simplejpeg

from keywarp.client import ApiError, Client, ConnectError, ProcessedFrame, ProtocolError
from keywarp.client.connecting import check_server, websocket_address
from keywarp.protocol import StreamInfo
from keywarp.protocol.events import Event, Rule, Rules
from tests.client.media import MODEL, picture, result
from tests.client.scripted import ScriptedApi
from tests.client.twins import Twin

NOW = datetime(2026, 11, 30, 17, 25, 31, tzinfo=UTC)
STREAM = StreamInfo(
    id="cam/1", model="street", interval=5, connected=False, age=1.5, idle=0.5, frames=3, key_frames=1, errors=0
)


def as_list(*items: str) -> bytes:
    return f"[{','.join(items)}]".encode()


def test_models_are_listed_and_shown(twin: Twin) -> None:
    with ScriptedApi(200, as_list(MODEL.model_dump_json())) as api:
        assert twin.call(api.address, "models") == (MODEL,)
    with ScriptedApi(200, MODEL.model_dump_json().encode()) as api:
        assert twin.call(api.address, "model", "a b") == MODEL
    assert api.requests[0][0] == "GET /v1/models/a%20b"


def test_models_are_loaded_and_unloaded(twin: Twin) -> None:
    with ScriptedApi(200, MODEL.model_dump_json().encode()) as api:
        assert twin.call(api.address, "load_model", "a b") == MODEL
        assert twin.call(api.address, "unload_model", "street") == MODEL
        assert twin.call(api.address, "unload_model", "street", force=True) == MODEL
    assert [request for request, _, _ in api.requests] == [
        "POST /v1/models/a%20b/load",
        "POST /v1/models/street/unload",
        "POST /v1/models/street/unload?force=true",
    ]


def test_a_client_waits_until_the_models_are_loaded(twin: Twin) -> None:
    with ScriptedApi(200, b'{"status": "ready"}') as api:
        twin.call(api.address, "wait_until_ready")
    assert [request for request, _, _ in api.requests] == ["GET /readyz"]
    with ScriptedApi(503, b"{}") as api, pytest.raises(ApiError) as refused:
        twin.call(api.address, "wait_until_ready", 0.3)
    assert refused.value.status == 503
    assert len(api.requests) > 1


def test_loading_has_a_timeout_of_its_own(twin: Twin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ConnectError, match="did not answer in time"):
        twin.call(f"http://127.0.0.1:{silent.getsockname()[1]}", "load_model", "street", timeout=0.1)


def test_rules_are_set_and_events_listed(twin: Twin) -> None:
    rules = Rules(rules={"someone": Rule(classes=("person",), min_seconds=5)}, zones={"z": ((0, 0), (1, 0), (1, 1))})
    event = Event(
        id="e", state="ended", stream="cam", camera="Cam", rule="someone", start=NOW, end=NOW, frame=3, classes=()
    )
    with ScriptedApi(200, rules.model_dump_json().encode()) as api:
        assert twin.call(api.address, "set_rules", "cam/1", rules) == rules
    assert api.requests[0][0] == "PUT /v1/streams/cam%2F1/rules"
    assert Rules.model_validate_json(api.requests[0][2]) == rules
    with ScriptedApi(200, as_list(event.model_dump_json())) as api:
        assert twin.call(api.address, "events", "cam", limit=5) == (event,)
        assert twin.call(api.address, "events") == (event,)
    assert [request for request, _, _ in api.requests] == [
        "GET /v1/events?stream=cam&limit=5",
        "GET /v1/events?limit=100",
    ]


def test_streams_are_listed_shown_created_and_deleted(twin: Twin) -> None:
    one = STREAM.model_dump_json()
    with ScriptedApi(200, as_list(one)) as api:
        assert twin.call(api.address, "streams") == (STREAM,)
    with ScriptedApi(201, one.encode()) as api:
        assert twin.call(api.address, "create_stream", "cam", model="street", interval=5) == STREAM
        assert twin.call(api.address, "stream_info", "cam/1") == STREAM
    assert [request for request, _, _ in api.requests] == ["POST /v1/streams", "GET /v1/streams/cam%2F1"]
    assert json.loads(api.requests[0][2]) == {"id": "cam", "model": "street", "interval": 5}
    with ScriptedApi(201, one.encode()) as api:
        twin.call(api.address, "create_stream", interval=5, schedule="adaptive", max_interval=9, max_age=2.5, overlap=4)
    assert json.loads(api.requests[0][2]) == {
        "interval": 5,
        "schedule": "adaptive",
        "max_interval": 9,
        "max_age": 2.5,
        "overlap": 4,
    }
    with ScriptedApi(201, one.encode()) as api:
        twin.call(api.address, "create_stream", mode="latest", masks="rle", resolution="frame")
    assert json.loads(api.requests[0][2]) == {"mode": "latest", "masks": "rle", "resolution": "frame"}
    with ScriptedApi(200, one.encode()) as api:
        assert twin.call(api.address, "change_stream", "cam", interval=5, max_age=None) == STREAM
        with pytest.raises(ValueError, match="model"):
            twin.call(api.address, "change_stream", "cam", model="other")
    assert [(request, json.loads(body)) for request, _, body in api.requests] == [
        ("PATCH /v1/streams/cam", {"interval": 5, "max_age": None})
    ]
    with ScriptedApi(204, b"") as api:
        assert twin.call(api.address, "delete_stream", "cam") is None
    assert api.requests[0][0] == "DELETE /v1/streams/cam"


def test_a_frame_is_sent_as_a_jpeg_and_its_result_comes_back(twin: Twin) -> None:
    labels = np.ones((3, 4), np.uint8)
    with ScriptedApi(200, result(0, id="x", labels=labels).model_dump_json().encode()) as api:
        given = twin.call(api.address, "infer", "cam", picture(100), id="x", timestamp=1.5)
    assert isinstance(given, ProcessedFrame)
    assert given.image is not None
    assert given.latency is not None
    np.testing.assert_array_equal(given.labels, labels)
    ((request, headers, body),) = api.requests
    assert request == "POST /v1/streams/cam/frames?id=x&timestamp=1.5"
    assert headers["content-type"] == "image/jpeg"
    assert simplejpeg.decode_jpeg(body).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n", "image/png"), (b"RIFF....WEBP", "image/webp")],
)
def test_encoded_images_are_sent_as_they_are(twin: Twin, data: bytes, kind: str) -> None:
    with ScriptedApi(200, result(0).model_dump_json().encode()) as api:
        assert twin.call(api.address, "infer", "cam", data).image is None
    assert api.requests[0][1]["content-type"] == kind
    assert api.requests[0][2] == data


def test_the_error_of_a_refusal_has_the_servers_problem(twin: Twin) -> None:
    problem = b'{"type": "about:blank", "title": "Not Found", "status": 404, "detail": "there is no model x"}'
    with (
        ScriptedApi(404, problem, "application/problem+json") as api,
        pytest.raises(ApiError, match="there is no model x") as caught,
    ):
        twin.call(api.address, "model", "x")
    assert caught.value.status == 404
    assert caught.value.problem.title == "Not Found"


def test_a_refusal_without_a_problem_has_its_status(twin: Twin) -> None:
    with ScriptedApi(502, b"<html>", "text/html") as api, pytest.raises(ApiError, match="502 Bad Gateway"):
        twin.call(api.address, "models")


def test_a_server_that_is_not_keywarp_is_reported(twin: Twin) -> None:
    with (
        ScriptedApi(200, b"<html>", "text/html") as api,
        pytest.raises(ProtocolError, match="didn't respond like a Keywarp server"),
    ):
        twin.call(api.address, "models")


def test_an_unreachable_server_is_reported(twin: Twin) -> None:
    with pytest.raises(ConnectError, match="keywarp serve"):
        twin.call("http://127.0.0.1:9", "models")


@pytest.mark.parametrize("address", ["", "localhost:8080", "ftp://x", "http://", "ws://127.0.0.1"])
def test_a_server_address_has_http_or_https_and_a_host(address: str) -> None:
    with pytest.raises(ValueError, match="looks like"):
        Client(address)


def test_the_scheme_of_an_address_may_be_in_capitals() -> None:
    assert websocket_address(check_server("HTTP://Box:8080/"), "a") == "ws://box:8080/v1/streams/a/ws"
