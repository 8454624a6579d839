"""Third-party producers: an RTSP server by GStreamer, and ffmpeg."""

import io
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

from tests.e2e.running import Server, serving, street_video

PYTHON = "/usr/bin/python3"  # of Debian, which has the bindings of GStreamer
PATIENCE = 30.0  # seconds
FRAMES = 250


@contextmanager
def camera(port: int = 0, *login: str, clip: Path | None = None) -> Iterator[int]:
    """Run an RTSP server, on a free port unless one is given, and give its port. It may ask for a user and password.

    It plays the street video once for each connection, or another clip.
    """
    if not _has_gstreamer():
        pytest.skip("no RTSP server: `make packages` installs GStreamer's")
    script = Path(__file__).with_name("rtsp_server.py")
    command = [PYTHON, str(script), str(clip or street_video()), str(port), *login]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def _has_gstreamer() -> bool:
    if not Path(PYTHON).exists():
        return False
    check = "import gi; gi.require_version('GstRtspServer', '1.0')"
    return subprocess.run([PYTHON, "-c", check], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def puller() -> Iterator[Server]:
    with serving("--allow-pull", "127.0.0.1") as server:
        yield server


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


def test_an_rtsp_camera_is_pulled_and_reconnected(puller: Server) -> None:
    with httpx.Client(base_url=puller.url, timeout=PATIENCE) as http:

        def info() -> dict[str, Any]:
            found: dict[str, Any] = http.get("/v1/streams/gate").json()
            return found

        with camera() as port:
            source = f"rtsp://admin:secret@127.0.0.1:{port}/camera"
            created = http.post("/v1/streams", json={"id": "gate", "source": source, "interval": 10})
            assert created.status_code == 201, created.text
            assert (created.json()["mode"], created.json()["source"]) == ("latest", f"rtsp://127.0.0.1:{port}/camera")
            eventually(lambda: info()["frames"] >= 10)
            running = info()
            assert (running["state"], running["errors"]) == ("running", 0)
            assert running["live"]["fps"] > 0
            with http.stream("GET", "/v1/streams/gate/results") as response:
                result = json.loads(next(response.iter_lines()))
            assert (result["width"], result["height"]) == (640, 272)
        eventually(lambda: info()["state"] == "retrying")
        before = info()["key_frames"]
        with camera(port):
            eventually(lambda: info()["state"] == "running")
            eventually(lambda: info()["key_frames"] > before)
            assert info()["reconnects"] >= 1
            assert http.delete("/v1/streams/gate").is_success


def test_an_rtsp_camera_that_refuses_the_password_is_not_asked_again(puller: Server) -> None:
    with httpx.Client(base_url=puller.url, timeout=PATIENCE) as http, camera(0, "admin", "right") as port:

        def state(stream: str) -> str:
            return str(http.get(f"/v1/streams/{stream}").json()["state"])

        for stream, login in (("wrong", "admin:secret@"), ("right", "admin:right@")):
            source = f"rtsp://{login}127.0.0.1:{port}/camera"
            assert http.post("/v1/streams", json={"id": stream, "source": source}).is_success
        eventually(lambda: (state("wrong"), state("right")) == ("unauthorized", "running"))
        found = http.get("/v1/streams/wrong").json()
        assert found["problem"].startswith("the source can't be read: it refuses the user and password of its URL")
        assert "secret" not in found["problem"]
        assert (found["connected"], found["reconnects"]) == (False, 0)
        for stream in ("wrong", "right"):
            http.delete(f"/v1/streams/{stream}")


def test_ffmpeg_and_curl_upload_a_transport_stream(server: Server) -> None:
    if not (ffmpeg := shutil.which("ffmpeg")):
        pytest.skip("no ffmpeg: `make packages` installs it")
    if not (curl := shutil.which("curl")):
        pytest.skip("no curl: `make packages` installs it")
    push = [ffmpeg, "-loglevel", "error", "-i", str(street_video()), "-c", "copy", "-f", "mpegts", "-"]
    take = [curl, "-sN", "-T", "-", "-X", "POST", "-H", "content-type: video/mp2t", f"{server.url}/v1/videos"]
    with subprocess.Popen(push, stdout=subprocess.PIPE) as pushing:
        taken = subprocess.run(take, stdin=pushing.stdout, capture_output=True, check=True, timeout=120)
    lines = [json.loads(line) for line in taken.stdout.splitlines()]
    assert lines[-1] == {
        "type": "done",
        "frames": FRAMES,
        "key_frames": FRAMES // 10,
        "errors": 0,
        "dropped": 0,
        "notes": [],
    }
    assert [line["frame"] for line in lines[:-1]] == list(range(FRAMES))


def test_ffmpeg_uploads_a_stream_that_has_a_subscriber(server: Server) -> None:
    """ffmpeg uploads in chunks and doesn't read the response."""
    if not (ffmpeg := shutil.which("ffmpeg")):
        pytest.skip("no ffmpeg: `make packages` installs it")
    url = f"{server.url}/v1/videos?codec=mpegts&id=pushed&interval=5"
    clip = str(street_video())
    push = [ffmpeg, "-loglevel", "error", "-re", "-i", clip, "-c", "copy", "-f", "mpegts", "-method", "POST", url]
    with subprocess.Popen(push) as pushing, httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
        eventually(lambda: http.get("/v1/streams/pushed").is_success)
        with http.stream("GET", "/v1/streams/pushed/results") as response:
            lines = response.iter_lines()
            frames = [json.loads(next(lines))["frame"] for _ in range(20)]
        assert frames == list(range(frames[0], frames[0] + 20))
        pushing.terminate()
    with httpx.Client(base_url=server.url) as http:
        eventually(lambda: http.get("/v1/streams/pushed").status_code == 404)


def test_a_cameras_events_have_clips_and_survive_restarts_of_both(tmp_path: Path) -> None:
    """Someone passes a real RTSP camera; then the camera restarts, and then the server."""
    site, archive = tmp_path / "site.toml", tmp_path / "events"
    options = ("--site", str(site), "--data", str(tmp_path / "data"))
    with camera() as port:
        pass  # only to learn of a free port
    site.write_text(
        f"""
        [streams.gate]
        source = "rtsp://127.0.0.1:{port}/camera"
        model = "street-detect"
        clip_before = 0.5
        clip_after = 1.0
        rules.someone = {{classes = ["person", "car", "bicycle"]}}
        events = ["archive"]

        [sinks.archive]
        file = "{archive}"
        """
    )

    def events() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = http.get("/v1/events", params={"limit": 1000}).json()
        return found

    with serving(*options) as server, httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
        with camera(port):
            eventually(lambda: bool(events()))
            first = events()[-1]
            assert http.get(first["snapshot"]).content.startswith(b"\xff\xd8")
            eventually(lambda: http.get(first["clip"]).is_success)
            with av.open(io.BytesIO(http.get(first["clip"]).content), "r") as clip:
                assert 1.0 <= (clip.duration or 0) / 1e6 <= 15.0  # from the key frame before
                assert [*clip.decode(video=0)]
        eventually(lambda: all(event["state"] == "ended" for event in events()))
        before = len(events())
        with camera(port):
            eventually(lambda: len(events()) > before)
    kept = [json.loads(line) for line in archive.read_text().splitlines()]
    told = [(event["id"], event["state"]) for event in kept]
    assert len(set(told)) == len(told), "each is delivered once"
    assert {state for _, state in told} == {"started", "ended"}
    assert told.count((first["id"], "started")) == told.count((first["id"], "ended")) == 1
    with serving(*options) as server, httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
        again = events()
        assert again[-1]["id"] == first["id"]
        assert {event["id"] for event in kept} <= {event["id"] for event in again}
