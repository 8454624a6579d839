"""Cameras over restarts of a real server process and of a real RTSP server."""

from pathlib import Path

import httpx

from tests.e2e.running import serving
from tests.e2e.test_cameras import PATIENCE, camera, eventually


def test_a_camera_that_was_added_survives_a_killed_server_and_its_own_restart(tmp_path: Path) -> None:
    options = ("--allow-pull", "127.0.0.1", "--data", str(tmp_path))
    with camera(0, "admin", "right") as port:
        source = f"rtsp://admin:right@127.0.0.1:{port}/camera"
        with serving(*options, status=-9) as server, httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
            assert http.post("/v1/streams", json={"id": "gate", "source": source, "interval": 5}).is_success
            server.process.kill()
    with serving(*options) as server, httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
        eventually(lambda: http.get("/v1/streams/gate").json()["state"] == "retrying")
        with camera(port, "admin", "right"):
            eventually(lambda: http.get("/v1/streams/gate").json()["frames"] > 10)
            assert http.get("/v1/streams/gate").json()["interval"] == 5
