"""The commands that ask a running server: `streams`, `models list --server`, and `stream` over a folder of videos."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from keywarp.client import Client
from tests.commands.running import keywarp
from tests.e2e.running import Server, serving, write_clip
from tests.tiny_bundle import tiny_bundle


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    tiny_bundle(models / "tiny")
    with serving("--backend", "onnxruntime", "--log-level", "warning", models=models) as running:
        yield running


def test_streams_are_listed_shown_and_deleted(server: Server) -> None:
    with Client(server.url) as client:
        client.create_stream("gate-1", interval=7)
    [listed] = json.loads(keywarp("streams", "list", "--server", server.url, "--json").stdout)
    assert (listed["id"], listed["interval"]) == ("gate-1", 7)
    table = keywarp("streams", "list", "--server", server.url).stdout
    assert "gate-1" in table
    assert "clients" in table
    shown = json.loads(keywarp("streams", "show", "gate-1", "--server", server.url).stdout)
    assert shown == listed | {key: shown[key] for key in ("age", "idle")}
    assert keywarp("streams", "delete", "gate-1", "--server", server.url).status == 0
    assert json.loads(keywarp("streams", "list", "--server", server.url, "--json").stdout) == []
    again = keywarp("streams", "delete", "gate-1", "--server", server.url)
    assert again.status == 1
    assert "gate-1" in again.stderr


def test_the_models_of_a_server_are_listed(server: Server) -> None:
    [listed] = json.loads(keywarp("models", "list", "--server", server.url, "--json").stdout)
    assert (listed["name"], listed["state"]) == ("tiny", "ready")
    table = keywarp("models", "list", "--server", server.url).stdout
    assert "tiny" in table
    assert "onnxruntime" in table


@pytest.mark.parametrize("codec", ["image", "mp4"])
def test_a_folder_of_videos_is_streamed_in_spite_of_a_broken_one(codec: str, server: Server, tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "results"
    videos.mkdir()
    (videos / "a.mp4").write_bytes(b"this is no video" * 64)
    write_clip(videos / "b.mp4", 5)
    command = ("stream", videos, "--server", server.url, "--codec", codec, "--ndjson", out, "--json")
    ran = keywarp(*command)
    assert ran.status == 1, ran.stderr
    assert [one["status"] for one in json.loads(ran.stdout)["videos"]] == ["failed", "done"]
    assert len((out / "b.ndjson").read_text().splitlines()) == 5
    (videos / "a.mp4").unlink()
    ran = keywarp(*command)
    assert ran.status == 0, ran.stderr
    assert [one["status"] for one in json.loads(ran.stdout)["videos"]] == ["skipped"]


def test_a_server_that_does_not_respond_stops_a_folder_at_once(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name, 3)
    ran = keywarp("stream", tmp_path, "--server", "http://127.0.0.1:9", "--reconnect", "0", "--json")
    assert ran.status == 1
    assert ran.stdout == ""
    assert len(ran.stderr.splitlines()) == 1
