"""A site file and API keys that change while a real server runs."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from keywarp.protocol import Hello
from keywarp.server.security.keys import ApiKey, add_key, new_key, remove_key, replace_key
from tests.server.conftest import Running, Starter, eventually
from tests.server.media import jpeg
from tests.server.sinks.test_sinks import sink_count, write_site
from tests.server.source_server import SourceServer, camera
from tests.server.test_pulls import info, until

PULLING = {"allow_pull": ("127.0.0.1",), "pull_timeout": 60.0}


@pytest.fixture
def live(web: SourceServer) -> Iterator[SourceServer]:
    """Give a web server with cameras, which go on until the test ends."""
    over = threading.Event()
    web.received.clear()
    for path in ("/a", "/b", "/c", "/d"):
        web.responders[path] = camera(None, over)
    yield web
    over.set()


def reload(server: Running, status: int = 200) -> dict[str, Any]:
    response = server.http.post("/v1/reload")
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()
    return found


def test_a_reload_starts_changes_and_removes_cameras_and_leaves_the_others_alone(
    start: Starter, live: SourceServer, tmp_path: Path
) -> None:
    def site(**cameras: str) -> Path:
        text = "".join(f'[streams.{name}]\nsource = "{live.address}/{rest}\n' for name, rest in cameras.items())
        return write_site(tmp_path, text)

    file = site(same='a"', tuned='b"', gone='c"', moved='d"')
    server = start(site=file, **PULLING)
    for name in ("same", "tuned", "gone", "moved"):
        until(server, name, "running")
    server.http.post("/v1/streams", json={"id": "fed"})
    site(same='a"', tuned='b"\ninterval = 3', moved='a"', new='c"\nupright = false')
    changed = reload(server)
    assert changed["streams"] == {"added": ["new"], "changed": ["tuned", "moved"], "removed": ["gone"]}
    assert changed["failed"] == {}
    until(server, "new", "running")
    eventually(lambda: info(server, "moved")["source"].endswith("/a") and info(server, "moved")["state"] == "running")
    assert info(server, "tuned")["interval"] == 3
    assert server.http.get("/v1/streams/gone").status_code == 404
    assert server.http.get("/v1/streams/fed").is_success
    assert {name: info(server, name)["reconnects"] for name in ("same", "tuned")} == {"same": 0, "tuned": 0}
    assert [len(live.requests(path)) for path in ("/a", "/b", "/c", "/d")] == [2, 1, 2, 1]
    assert 'camera="gone"' not in server.http.get("/metrics").text
    assert 'keywarp_camera_state{camera="new",state="running"} 1.0' in server.http.get("/metrics").text
    assert reload(server)["streams"] == {"added": [], "changed": [], "removed": []}


def test_rules_of_a_running_camera_change_with_the_file(start: Starter, live: SourceServer, tmp_path: Path) -> None:
    text = f'[streams.gate]\nsource = "{live.address}/a"\n'
    server = start(site=write_site(tmp_path, text), **PULLING)
    until(server, "gate", "running")
    write_site(tmp_path, text + '[streams.gate.rules.seen]\nclasses = ["green"]')
    assert reload(server)["streams"]["changed"] == ["gate"]
    eventually(lambda: len(server.http.get("/v1/events").json()) == 1)
    assert (info(server, "gate")["rules"], len(live.requests("/a"))) == (["seen"], 1)
    write_site(tmp_path, text + '[streams.gate.rules.seen]\nclasses = ["dragon"]')
    assert "dragon" in reload(server)["failed"]["gate"]


def test_a_camera_that_cannot_be_started_is_named_and_the_others_are_started(
    start: Starter, live: SourceServer, tmp_path: Path
) -> None:
    server = start(site=write_site(tmp_path, ""), **PULLING)
    write_site(
        tmp_path,
        f"""
        [streams.bad]
        source = "{live.address}/a"
        model = "other"
        [streams.good]
        source = "{live.address}/b"
        """,
    )
    assert "there is no model 'other'" in reload(server)["failed"]["bad"]
    until(server, "good", "running")
    assert 'keywarp_camera_state{camera="bad",state="failed"} 1.0' in server.http.get("/metrics").text


def test_an_invalid_file_changes_nothing(start: Starter, live: SourceServer, tmp_path: Path) -> None:
    file = write_site(tmp_path, f'[streams.gate]\nsource = "{live.address}/a"')
    server = start(site=file, **PULLING)
    until(server, "gate", "running")
    write_site(tmp_path, "[streams.gate]\ninterval = 3")
    assert "streams.gate.source" in reload(server, 422)["detail"]
    assert info(server, "gate")["state"] == "running"


def test_sinks_are_added_replaced_and_removed_while_their_camera_runs(
    start: Starter, live: SourceServer, tmp_path: Path
) -> None:
    def site(*sinks: str, names: str) -> Path:
        stream = f'[streams.gate]\nsource = "{live.address}/a"\nsinks = {names}\n'
        return write_site(tmp_path, stream + "\n".join(sinks))

    def lines(name: str) -> int:
        return len((tmp_path / name).read_text().splitlines()) if (tmp_path / name).exists() else 0

    file = site(f'[sinks.one]\nfile = "{tmp_path}/old"', names='["one"]')
    server = start(site=file, **PULLING)
    eventually(lambda: lines("old") > 2)
    site(
        f'[sinks.one]\nfile = "{tmp_path}/new"',
        f'[sinks.two]\nfile = "{tmp_path}/second"',
        names='["one"]',
    )
    assert reload(server)["sinks"] == {"added": ["two"], "changed": ["one"], "removed": []}
    eventually(lambda: lines("new") > 2)
    old = lines("old")
    frames = [
        json.loads(line)["frame"] for name in ("old", "new") for line in (tmp_path / name).read_text().splitlines()
    ]
    assert frames == list(range(len(frames))), "a response is missing, or came twice"
    assert sink_count(server, "one", "missed") == 0
    server.http.post("/v1/streams", json={"id": "fed", "sinks": ["two"]})
    server.frame("fed")
    eventually(lambda: lines("second") == 1)
    site(f'[sinks.one]\nfile = "{tmp_path}/new"', names='["one"]')
    assert reload(server)["sinks"]["removed"] == ["two"]
    server.frame("fed")
    assert server.http.post("/v1/streams", json={"sinks": ["two"]}).status_code == 400
    assert (lines("old"), lines("second")) == (old, 1)
    assert len(live.requests("/a")) == 1


# -- keys --------------------------------------------------------------------------------------------------------------


def add(file: Path, name: str, scopes: str = "stream", **limits: float | None) -> dict[str, str]:
    secret, key = new_key(name, scopes, **limits)
    add_key(file, key)
    return {"Authorization": f"Bearer {secret}"}


def test_keys_are_added_removed_and_rotated_while_the_server_runs(start: Starter, tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    operator = add(file, "operator", "site")
    stays, removed, rotated = (add(file, name) for name in ("stays", "removed", "rotated"))
    server = start(keys=file)
    added = add(file, "added", streams=1)
    remove_key(file, "removed")
    secret, key = new_key("rotated", "stream")
    replace_key(file, key)

    def status(headers: dict[str, str]) -> int:
        return httpx.get(f"{server.url}/v1/streams", headers=headers).status_code

    assert [status(one) for one in (stays, removed, rotated, added)] == [200, 200, 200, 401]
    assert httpx.post(f"{server.url}/v1/reload", headers=stays).status_code == 403
    changes = httpx.post(f"{server.url}/v1/reload", headers=operator).json()["keys"]
    assert changes == {"added": ["added"], "changed": ["rotated"], "removed": ["removed"]}
    assert [status(one) for one in (stays, removed, rotated, added)] == [200, 401, 401, 200]
    assert status({"X-API-Key": secret}) == 200
    created = [httpx.post(f"{server.url}/v1/streams", json={}, headers=added).status_code for _ in range(2)]
    assert created == [201, 429]
    replace_key(file, ApiKey("added", key.scopes, "0" * 64))
    file.write_text(file.read_text() + "nonsense\n")
    refused = httpx.post(f"{server.url}/v1/reload", headers=operator)
    assert (refused.status_code, status(added)) == (422, 200)


def test_connections_of_a_removed_key_end_and_others_go_on(start: Starter, tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    operator, stays, removed = add(file, "operator", "site"), add(file, "stays"), add(file, "removed")
    server = start(keys=file)
    with (
        server.connect("theirs", Hello(), additional_headers=removed) as theirs,
        server.connect("ours", Hello(), additional_headers=stays) as ours,
        httpx.stream("GET", f"{server.url}/v1/streams/ours/results", headers=removed, timeout=30) as watched,
    ):
        remove_key(file, "removed")
        assert httpx.post(f"{server.url}/v1/reload", headers=operator).is_success
        assert theirs.close_code() == 1008
        assert list(watched.iter_lines()) == []
        ours.frame(jpeg())
        assert ours.result().kind == "key"
        # Another reload, after which the key that stays is still the same one.
        assert httpx.post(f"{server.url}/v1/reload", headers=operator).json()["keys"]["removed"] == []
        ours.frame(jpeg())
        assert ours.result().kind == "propagated"
    assert not server.tasks()
