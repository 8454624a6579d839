"""Cameras that are added while the server runs, on real servers that are started again."""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keywarp.server.errors import CameraStoreError
from keywarp.server.process import Server
from keywarp.server.settings import Settings
from tests.server.conftest import Running, Starter, eventually
from tests.server.media import B_FRAMES, mpegts
from tests.server.sinks.test_sinks import write_site
from tests.server.source_server import SourceServer, camera, file
from tests.server.test_pulls import info, until

PULLING = {"allow_pull": ("127.0.0.1",), "pull_timeout": 60.0}


@pytest.fixture
def live(web: SourceServer) -> Iterator[SourceServer]:
    """Give a web server with two cameras, which go on until the test ends."""
    over = threading.Event()
    web.responders["/gate"] = web.responders["/yard"] = camera(None, over)
    yield web
    over.set()


def add(server: Running, id_: str, source: str, **options: Any) -> None:
    created = server.http.post("/v1/streams", json={"id": id_, "source": source, **options})
    assert created.status_code == 201, created.text


def streams(server: Running) -> set[str]:
    return {stream["id"] for stream in server.http.get("/v1/streams").json()}


def test_a_camera_that_was_added_is_there_after_a_restart_with_its_options(
    start: Starter, live: SourceServer, tmp_path: Path
) -> None:
    first = start(data=tmp_path, **PULLING)
    add(first, "gate", f"{live.address}/gate", interval=7, mode="latest", masks="none")
    add(first, "yard", f"{live.address}/yard")
    add(first, "deleted", f"{live.address}/gate")
    assert until(first, "gate", "running")["kept"]
    first.http.post("/v1/streams", json={"id": "fed"})
    first.http.post("/v1/streams/yard/pause")
    first.http.delete("/v1/streams/deleted")
    first.stop()
    second = start(data=tmp_path, **PULLING)
    eventually(lambda: streams(second) == {"gate", "yard"})
    running = until(second, "gate", "running")
    assert (running["interval"], running["mode"], running["kept"]) == (7, "latest", True)
    assert until(second, "yard", "paused")["frames"] == 0
    assert second.http.post("/v1/streams/yard/resume").is_success
    until(second, "yard", "running")


def test_without_a_folder_nothing_is_kept_and_the_stream_says_so(start: Starter, live: SourceServer) -> None:
    server = start(**PULLING)
    add(server, "gate", f"{live.address}/gate")
    assert info(server, "gate")["kept"] is False


def test_a_file_that_has_ended_is_not_read_again_after_a_restart(
    start: Starter, web: SourceServer, tmp_path: Path
) -> None:
    web.responders["/clip.ts"] = file(mpegts(10, B_FRAMES))
    first = start(data=tmp_path, **PULLING)
    add(first, "clip", f"{web.address}/clip.ts")
    until(first, "clip", "ended")
    first.stop()
    second = start(data=tmp_path, **PULLING)
    assert streams(second) == set()


def test_a_camera_that_cannot_be_started_stays_and_its_metric_says_so(
    start: Starter, live: SourceServer, tmp_path: Path
) -> None:
    first = start(data=tmp_path, max_streams=2, **PULLING)
    add(first, "gate", f"{live.address}/gate")
    add(first, "yard", f"{live.address}/yard")
    first.stop()
    second = start(data=tmp_path, max_streams=1, **PULLING)
    until(second, "gate", "running")
    assert 'keywarp_camera_state{camera="yard",state="failed"} 1.0' in second.http.get("/metrics").text
    second.stop()
    third = start(data=tmp_path, **PULLING)
    until(third, "yard", "running")


def test_the_site_file_replaces_a_camera_that_was_added(start: Starter, live: SourceServer, tmp_path: Path) -> None:
    first = start(data=tmp_path / "data", **PULLING)
    add(first, "gate", f"{live.address}/gate", interval=7)
    first.stop()
    site = write_site(tmp_path, f'[streams.gate]\nsource = "{live.address}/yard"\ninterval = 3')
    second = start(data=tmp_path / "data", site=site, **PULLING)
    running = until(second, "gate", "running")
    assert (running["interval"], running["source"]) == (3, f"{live.address}/yard")
    second.stop()
    third = start(data=tmp_path / "data", **PULLING)
    assert streams(third) == set()


def test_only_the_servers_user_can_read_the_database_which_holds_passwords(
    start: Starter, live: SourceServer, tmp_path: Path
) -> None:
    mask = os.umask(0)
    try:
        server = start(data=tmp_path / "data", **PULLING)
        add(server, "gate", f"http://admin:secret@127.0.0.1:{live.server_port}/gate")
    finally:
        os.umask(mask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").iterdir()}
    assert modes.pop("cameras.sqlite3") == 0o600
    assert set(modes.values()) <= {0o600}
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert "secret" not in server.http.get("/v1/streams").text


def test_two_servers_do_not_share_a_folder(start: Starter, models: Path, tmp_path: Path) -> None:
    start(data=tmp_path)
    with pytest.raises(CameraStoreError, match="another server uses this folder"):
        Server(Settings(models=models, port=0, backend="onnxruntime", data=tmp_path))


def test_a_database_that_is_none_is_refused(models: Path, tmp_path: Path) -> None:
    (tmp_path / "cameras.sqlite3").write_text("no database" * 1000)
    with pytest.raises(CameraStoreError, match="not a database"):
        Server(Settings(models=models, port=0, backend="onnxruntime", data=tmp_path))
