"""API keys on a real server."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from keywarp.client import ApiError, Client
from keywarp.protocol import KEY_SUBPROTOCOL, SUBPROTOCOL, Hello
from keywarp.server.errors import ForbiddenError, KeyFileError, UnauthorizedError
from keywarp.server.process import Server
from keywarp.server.security.keys import ApiKeys, new_key, read_keys
from keywarp.server.settings import Settings
from tests.server.conftest import Running, running
from tests.server.media import jpeg
from tests.server.routes.test_streams import problem

GATE, GATE_LINE = new_key("gate", "stream")
GRAFANA, GRAFANA_LINE = new_key("grafana", "metrics")


@pytest.fixture(scope="module")
def locked(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    file = tmp_path_factory.mktemp("keys") / "keys.txt"
    file.write_text(f"# the keys of this test\n\n{GATE_LINE}\n{GRAFANA_LINE}\n")
    server = running(models, keys=file)
    server.start()
    yield server
    server.stop()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_requests_without_a_key_reach_only_health_and_documentation(locked: Running) -> None:
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert locked.http.get(path).status_code == 200
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/streams"), ("GET", "/metrics"), ("GET", "/nosuch")):
        response = locked.http.request(method, path, content=b"{")
        assert problem(response).status == 401
        assert response.headers["www-authenticate"] == "Bearer"
    assert locked.http.get("/v1/streams", headers=bearer(GATE)).json() == []


@pytest.mark.parametrize("wrong", ["kw_wrong", "", GATE[:-1], GATE + "x", "ö", "x" * 5000])
def test_an_unknown_key_is_refused(locked: Running, wrong: str) -> None:
    assert problem(locked.http.get("/v1/models", headers=[(b"x-api-key", wrong.encode())])).status == 401


@pytest.mark.parametrize("headers", [bearer(GATE), {"authorization": f"bearer  {GATE}"}, {"X-API-Key": GATE}])
def test_a_key_is_accepted_in_either_header(locked: Running, headers: dict[str, str]) -> None:
    assert locked.http.get("/v1/models", headers=headers).status_code == 200


def test_a_key_is_refused_outside_its_scopes(locked: Running) -> None:
    assert problem(locked.http.get("/metrics", headers=bearer(GATE))).status == 403
    assert problem(locked.http.get("/v1/models", headers=bearer(GRAFANA))).status == 403
    text = locked.http.get("/metrics", headers=bearer(GRAFANA)).text
    assert 'keywarp_requests_refused_total{reason="forbidden"}' in text
    assert 'keywarp_requests_refused_total{reason="unauthorized"}' in text


def test_a_websocket_needs_a_key_in_a_header_or_a_subprotocol(locked: Running) -> None:
    with pytest.raises(InvalidStatus) as refused, locked.connect("ws"):
        pass
    assert refused.value.response.status_code == 401
    with locked.connect("ws", Hello(), additional_headers=bearer(GATE)) as talk:
        talk.frame(jpeg())
        assert talk.result().kind == "key"
    with locked.connect("ws", Hello(), subprotocols=[SUBPROTOCOL, KEY_SUBPROTOCOL + GATE]) as talk:
        assert talk.socket.subprotocol == SUBPROTOCOL
        talk.frame(jpeg())
        assert talk.result().kind == "key"


def test_an_upload_without_a_key_is_not_read(locked: Running) -> None:
    assert problem(locked.http.post("/v1/videos?codec=mp4", content=bytes(1000))).status == 401


def test_the_client_sends_its_key(locked: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [np.zeros((64, 96, 3), np.uint8)] * 3
    with Client(locked.url, api_key=GATE) as client:
        assert [model.name for model in client.models()] == ["tiny"]
        assert len(list(client.stream(frames))) == 3
    with Client(locked.url) as client:
        with pytest.raises(ApiError, match="requires an API key"):
            client.models()
        with pytest.raises(ApiError, match="requires an API key"):
            client.stream(frames)
    monkeypatch.setenv("KEYWARP_API_KEY", GATE)
    with Client(locked.url) as client:
        assert len(list(client.stream(frames))) == 3


def test_the_line_of_a_key_holds_only_its_hash() -> None:
    assert GATE.startswith("kw_")
    assert GATE not in str(GATE_LINE)
    api_keys = ApiKeys([GATE_LINE, GRAFANA_LINE])
    assert api_keys.authorize(GATE, "stream").name == "gate"
    with pytest.raises(UnauthorizedError):
        api_keys.authorize(None, "stream")
    with pytest.raises(ForbiddenError, match="grafana"):
        api_keys.authorize(GRAFANA, "stream")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no key"),
        ("# nothing\n", "holds no key"),
        (f"{GATE_LINE}\ngate stream\n", "line 2: not"),
        (f"gate stream {GATE}\n", "line 1: not"),
        (str(GATE_LINE).replace("stream", "stream,root"), "no such scope: root"),
        (f"{GATE_LINE}\n{GATE_LINE}", "line 2: there is already"),
        (f"{GATE_LINE} streams=0", "line 1: not a limit: streams: Input should be greater"),
        (f"{GATE_LINE} streams", "line 1: not a limit: streams"),
        (f"{GATE_LINE} colour=red", "line 1: not a limit: colour.* there are: streams"),
    ],
)
def test_an_invalid_file_of_keys_is_refused(models: Path, tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(text)
    with pytest.raises(KeyFileError, match=says):
        read_keys(file)
    with pytest.raises(KeyFileError, match=says):
        Server(Settings(models=models, keys=file))


def test_a_server_does_not_start_without_its_file_of_keys(models: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="can't be read"):
        Server(Settings(models=models, keys=tmp_path / "none.txt"))


def test_a_server_without_keys_requires_none(server: Running) -> None:
    assert httpx.get(f"{server.url}/v1/models").status_code == 200
