"""Cameras that are added and changed while the server runs, on real servers that are started again."""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keywarp.protocol import Hello
from keywarp.server.errors import CameraStoreError, EventStoreError
from keywarp.server.process import Server
from keywarp.server.settings import Settings
from tests.server.conftest import Running, Starter, eventually
from tests.server.media import B_FRAMES, GREEN, jpeg, mpegts
from tests.server.models.loading import is_closed
from tests.server.sinks.test_sinks import write_site
from tests.server.source_server import SourceServer, camera, file
from tests.server.test_pulls import info, until
from tests.tiny_bundle import tiny_bundle

PULLING = {"allow_pull": ("127.0.0.1",), "pull_timeout": 60.0}


@pytest.fixture
def live(web: SourceServer) -> Iterator[SourceServer]:
    """Give a web server with two cameras, which go on until the test ends."""
    over = threading.Event()
    web.received.clear()
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
    with pytest.raises((CameraStoreError, EventStoreError), match="another server uses th"):
        Server(Settings(models=models, port=0, backend="onnxruntime", data=tmp_path))


def test_a_database_that_is_none_is_refused(models: Path, tmp_path: Path) -> None:
    (tmp_path / "cameras.sqlite3").write_text("no database" * 1000)
    with pytest.raises(CameraStoreError, match="not a database"):
        Server(Settings(models=models, port=0, backend="onnxruntime", data=tmp_path))


# -- changes while it runs ---------------------------------------------------------------------------------------------


def change(server: Running, id_: str, **changes: Any) -> dict[str, Any]:
    changed = server.http.patch(f"/v1/streams/{id_}", json=changes)
    assert changed.status_code == 200, changed.text
    found: dict[str, Any] = changed.json()
    return found


def test_the_interval_of_a_running_camera_changes_without_a_reconnection_and_is_kept(
    start: Starter, live: SourceServer, tmp_path: Path
) -> None:
    server = start(data=tmp_path, **PULLING)
    add(server, "gate", f"{live.address}/gate", interval=1000)
    eventually(lambda: info(server, "gate")["frames"] > 5)
    assert info(server, "gate")["key_frames"] == 1
    assert change(server, "gate", interval=2, masks="none")["interval"] == 2
    eventually(lambda: info(server, "gate")["key_frames"] > 5)
    changed = change(server, "gate", schedule="adaptive", max_interval=50, max_age=9)
    assert (changed["interval"], changed["max_interval"], changed["max_age"]) == (2, 50, 9)
    assert change(server, "gate", schedule=None, max_interval=None)["schedule"] == "fixed"
    found = info(server, "gate")
    assert (found["reconnects"], found["errors"], len(live.requests("/gate"))) == (0, 0, 1)
    server.stop()
    again = start(data=tmp_path, **PULLING)
    eventually(lambda: streams(again) == {"gate"})
    assert (info(again, "gate")["interval"], info(again, "gate")["max_age"]) == (2, 9)


def test_tracking_is_switched_on_and_off_and_rules_survive_a_restart(
    start: Starter, live: SourceServer, tmp_path: Path
) -> None:
    tiny_bundle(tmp_path / "tiny", detection=True)
    server = start(models=tmp_path, data=tmp_path / "data", **PULLING)
    add(server, "gate", f"{live.address}/gate")
    assert change(server, "gate", track=True)["track"]
    assert not change(server, "gate", track=False)["track"]
    rules = {"title": "The gate", "zones": {"door": [[0, 0], [1, 0], [1, 1]]}, "rules": {"seen": {"zone": "door"}}}
    assert server.http.put("/v1/streams/gate/rules", json=rules).is_success
    assert info(server, "gate")["track"], "rules need it"
    wanted = server.http.get("/v1/streams/gate/rules").json()
    add(server, "yard", f"{live.address}/gate", **rules)
    assert server.http.get("/v1/streams/yard/rules").json() == wanted
    server.stop()
    again = start(models=tmp_path, data=tmp_path / "data", **PULLING)
    until(again, "gate", "running")
    assert again.http.get("/v1/streams/gate/rules").json() == wanted
    assert again.http.get("/v1/streams/yard/rules").json() == wanted, "those it was added with"
    assert info(again, "gate")["title"] == "The gate"


def test_rules_change_one_by_one_like_other_options_and_survive_a_restart(
    start: Starter, live: SourceServer, tmp_path: Path
) -> None:
    tiny_bundle(tmp_path / "tiny", detection=True)
    server = start(models=tmp_path, data=tmp_path / "data", **PULLING)
    add(server, "gate", f"{live.address}/gate", zones={"door": [[0, 0], [1, 0], [1, 1]]})
    seen = {"seen": {"zone": "door"}}
    changed = change(server, "gate", interval=4, rules=seen, title="The gate")
    assert (changed["interval"], changed["rules"], changed["title"]) == (4, ["seen"], "The gate")
    wanted = server.http.get("/v1/streams/gate/rules").json()
    assert [*wanted["zones"]] == ["door"], "what is left out stays"
    unfit: list[dict[str, Any]] = [
        {"zones": {}},
        {"rules": {"seen": {"classes": ["unicorn"]}}},
        {"events": ["nowhere"]},
    ]
    for wrong in unfit:
        assert server.http.patch("/v1/streams/gate", json={"interval": 9, **wrong}).status_code == 400
    assert (info(server, "gate")["interval"], server.http.get("/v1/streams/gate/rules").json()) == (4, wanted)
    assert change(server, "gate", title=None)["title"] is None
    assert change(server, "gate", title="The gate")["interval"] == 4
    server.stop()
    again = start(models=tmp_path, data=tmp_path / "data", **PULLING)
    until(again, "gate", "running")
    assert again.http.get("/v1/streams/gate/rules").json() == wanted


def test_the_listing_says_where_a_camera_is_configured(start: Starter, live: SourceServer, tmp_path: Path) -> None:
    site = write_site(tmp_path, f'[streams.yard]\nsource = "{live.address}/yard"')
    server = start(data=tmp_path / "data", site=site, **PULLING)
    add(server, "gate", f"{live.address}/gate", max_fps=5, hidden=[[[0, 0], [1, 0], [1, 1]]])
    server.http.post("/v1/streams", json={"id": "fed"}).raise_for_status()
    eventually(lambda: len(streams(server)) == 3)
    listed = {stream["id"]: stream for stream in server.http.get("/v1/streams").json()}
    found = {name: stream["configured"] for name, stream in listed.items()}
    assert found == {"yard": "site", "gate": "stored", "fed": None}
    assert (listed["gate"]["max_fps"], listed["gate"]["hidden"]) == (5, [[[0, 0], [1, 0], [1, 1]]])


def test_another_mode_or_source_connects_a_camera_again_at_once(start: Starter, live: SourceServer) -> None:
    server = start(**PULLING)
    add(server, "gate", f"{live.address}/gate")
    assert until(server, "gate", "running")["mode"] == "lossless"
    before = info(server, "gate")["frames"]
    assert change(server, "gate", mode="latest")["mode"] == "latest"
    eventually(lambda: len(live.requests("/gate")) == 2 and info(server, "gate")["frames"] > before)
    add(server, "wrong", f"{live.address}/nothing")
    until(server, "wrong", "retrying")
    assert change(server, "wrong", source=f"{live.address}/yard")["source"] == f"{live.address}/yard"
    assert until(server, "wrong", "running").get("problem") is None


def test_a_client_gets_a_key_frame_after_the_interval_was_changed(server: Running) -> None:
    with server.connect("fed", Hello(interval=1000)) as talk:
        for _ in range(3):
            talk.frame(jpeg(GREEN))
        assert [talk.result().kind for _ in range(3)] == ["key", "propagated", "propagated"]
        change(server, "fed", interval=2)
        for _ in range(4):
            talk.frame(jpeg(GREEN))
        assert [talk.result().kind for _ in range(4)] == ["key", "propagated", "key", "propagated"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"max_interval": 50}, 400),
        ({"interval": 0}, 422),
        ({"track": True}, 400),
        ({"model": "other"}, 422),
        ({"source": "http://127.0.0.1/"}, 409),
    ],
)
def test_a_change_that_cannot_be_made_leaves_the_stream_as_it_is(
    server: Running, changes: dict[str, Any], status: int
) -> None:
    server.http.post("/v1/streams", json={"id": "still", "interval": 7})
    before = info(server, "still")
    assert server.http.patch("/v1/streams/still", json=changes).status_code == status
    after = info(server, "still")
    assert {**before, "age": 0, "idle": 0} == {**after, "age": 0, "idle": 0}
    server.http.delete("/v1/streams/still")


def test_a_camera_may_not_be_moved_to_a_host_that_is_not_allowed(start: Starter, live: SourceServer) -> None:
    server = start(**PULLING)
    add(server, "gate", f"{live.address}/gate")
    assert server.http.patch("/v1/streams/gate", json={"source": "http://10.1.2.3/"}).status_code == 403
    assert server.http.patch("/v1/streams/gate", json={"source": None}).status_code == 400
    assert info(server, "gate")["source"] == f"{live.address}/gate"


def test_a_camera_moves_to_a_new_version_of_its_model_and_the_old_one_is_freed(
    start: Starter, live: SourceServer, tmp_path: Path
) -> None:
    tiny_bundle(tmp_path / "tiny")
    server = start(models=tmp_path, model_control=True, **PULLING)
    add(server, "gate", f"{live.address}/gate", interval=1000)
    until(server, "gate", "running")
    server.http.post("/v1/streams", json={"id": "fed"})
    server.frame("fed")
    old = server.service.models["tiny"]
    tiny_bundle(tmp_path / "tiny", version="2.0.0")
    assert server.http.post("/v1/models/tiny/load").json()["version"] == "2.0.0"
    camera_stream = server.service.streams["gate"]
    eventually(lambda: camera_stream.engine.bundle.manifest.version == "2.0.0")
    before = info(server, "gate")["frames"]
    eventually(lambda: info(server, "gate")["frames"] > before)
    assert (info(server, "gate")["errors"], info(server, "gate")["reconnects"]) == (0, 0)
    assert server.service.streams["fed"].engine is old
    assert server.http.get("/v1/models/tiny").json()["draining"] == 1
    server.http.delete("/v1/streams/fed")
    eventually(lambda: is_closed(old))
