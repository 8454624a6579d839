"""A real Prometheus, with the alerts that Keywarp ships, beside a real server."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.running import ROOT, serving
from tests.e2e.test_cameras import camera, eventually
from tests.server.media import jpeg
from tests.tiny_bundle import tiny_bundle


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """Run Prometheus on a free port and give its URL. Alerts fire after seconds instead of minutes."""
    if not (program := shutil.which("prometheus")):
        pytest.skip("no Prometheus: `make packages` installs it")
    alerts = (ROOT / "docker" / "prometheus" / "alerts.yml").read_text()
    (folder / "alerts.yml").write_text(re.sub(r"\bfor: \d+m", "for: 1s", alerts))
    (folder / "prometheus.yml").write_text(f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [alerts.yml]
scrape_configs: [{{job_name: keywarp, static_configs: [{{targets: ["{urlsplit(target).netloc}"]}}]}}]
""")
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with subprocess.Popen([*command, f"--web.listen-address={address}", "--log.level=error"]) as process:
        try:
            yield f"http://{address}"
        finally:
            process.terminate()


def firing(url: str) -> set[tuple[str, str]]:
    """Return the name and the camera of each alert about a camera that fires. A busy machine has others, too."""
    try:
        alerts = httpx.get(f"{url}/api/v1/alerts").json()["data"]["alerts"]
    except httpx.TransportError:  # it starts
        return set()
    return {
        (alert["labels"]["alertname"], alert["labels"]["camera"])
        for alert in alerts
        if alert["state"] == "firing" and "camera" in alert["labels"]
    }


def test_the_alerts_for_a_dead_camera_and_a_wrong_password_fire_and_end(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    with ExitStack() as opened:
        locked = opened.enter_context(camera(0, "admin", "right"))
        with camera() as port:
            site.write_text(f"""
                [streams.gate]
                source = "rtsp://127.0.0.1:{port}/camera"
                [streams.door]
                source = "rtsp://admin:wrong@127.0.0.1:{locked}/camera"
            """)
            server = opened.enter_context(serving("--site", str(site)))
            url = opened.enter_context(prometheus(tmp_path, server.url))
            wrong = {("KeywarpCameraUnauthorized", "door"), ("KeywarpCameraDown", "door")}
            eventually(lambda: firing(url) == wrong)
        eventually(lambda: firing(url) == {*wrong, ("KeywarpCameraDown", "gate")})
        with camera(port):
            assert httpx.post(f"{server.url}/v1/streams/gate/resume").is_success  # instead of waiting
            eventually(lambda: firing(url) == wrong)


def test_every_panel_of_the_dashboard_shows_something(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "models" / "tiny")
    site = tmp_path / "site.toml"
    site.write_text(f"""
        [streams.gate]
        source = "rtsp://127.0.0.1:1/nobody"
        [sinks.archive]
        file = "{tmp_path}/archive.ndjson"
    """)
    dashboard = json.loads((ROOT / "docker" / "grafana" / "dashboards" / "keywarp.json").read_text())
    with ExitStack() as opened:
        server = opened.enter_context(
            serving("--site", str(site), "--backend", "onnxruntime", models=tmp_path / "models")
        )
        url = opened.enter_context(prometheus(tmp_path, server.url))
        http = opened.enter_context(httpx.Client(base_url=server.url))
        assert http.put("/v1/streams/door", json={"sinks": ["archive"], "interval": 2}).is_success

        def empty() -> list[str]:
            """Work, and return the titles of the panels without a number."""
            for content in (jpeg(), jpeg(), b"no image"):
                http.post("/v1/streams/door/frames", content=content)
            http.get("/v1/streams", headers={"Origin": "https://other.example"})
            return [panel["title"] for panel in dashboard["panels"] if not numbers(url, panel)]

        eventually(lambda: empty() == [])


def numbers(url: str, panel: dict[str, Any]) -> list[str]:
    """Return the numbers that a panel shows now."""
    found = []
    for target in panel["targets"]:
        query = target["expr"].replace("$__rate_interval", "5s")
        try:
            answer = httpx.get(f"{url}/api/v1/query", params={"query": query}).json()
        except httpx.TransportError:  # it starts
            return []
        assert answer["status"] == "success", answer
        found += [series["value"][1] for series in answer["data"]["result"] if series["value"][1] != "NaN"]
    return found
