"""nginx with the configuration that docs/server.md shows."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from keywarp.client import Client
from tests.e2e.running import ROOT, Server, write_clip

PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"


@contextmanager
def nginx(folder: Path, server: str) -> Iterator[str]:
    """Run nginx in front of a server, with the documented location, and give its URL."""
    command = shutil.which("nginx", path=PATH)
    if not command:
        pytest.skip("no nginx: `make packages` installs it")
    documented = re.search(r"```nginx\n(.*?)```", (ROOT / "docs" / "server.md").read_text(), re.DOTALL)
    assert documented
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    location = documented[1].replace("http://127.0.0.1:8080", server)
    temporary = "\n".join(
        f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"""
        daemon off; pid {folder}/pid; error_log {folder}/error.log;
        events {{}}
        http {{ access_log off; {temporary} server {{ listen 127.0.0.1:{port}; {location} }} }}
        """
    )
    with subprocess.Popen([command, "-c", config, "-e", folder / "error.log"]) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 20
            while True:
                try:
                    httpx.get(url)
                    break
                except httpx.ConnectError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            yield url
        finally:
            process.terminate()


def test_streams_and_watchers_pass_through_the_proxy(server: Server, clip: Path, tmp_path: Path) -> None:
    with nginx(tmp_path, server.url) as url, Client(url) as client:
        with client.stream(clip, interval=50, in_flight=4) as results:
            assert [result.frame for result in results] == list(range(50))
        with client.stream(clip, codec="h264", stream_id="gate") as results, client.watch("gate") as watch:
            assert next(results).frame == 0
            assert next(watch).kind in ("key", "propagated")


def test_the_dashboard_passes_through_the_proxy(server: Server, tmp_path: Path) -> None:
    with nginx(tmp_path, server.url) as url:
        page = httpx.get(url + "/", headers={"Origin": url})
        assert page.is_success
        assert page.content == httpx.get(server.url + "/").content


def test_the_proxy_passes_results_on_while_a_video_is_still_uploaded(server: Server, tmp_path: Path) -> None:
    video = write_clip(tmp_path / "clip.ts", 50).read_bytes()
    with nginx(tmp_path, server.url) as url:
        connection = HTTPConnection(url.removeprefix("http://"), timeout=30)
        connection.putrequest("POST", "/v1/videos")
        connection.putheader("Content-Type", "video/mp2t")
        connection.putheader("Content-Length", str(len(video)))
        connection.endheaders(video[: len(video) // 2])
        response = connection.getresponse()
        first = json.loads(response.readline())
        connection.send(video[len(video) // 2 :])
        *results, done = [first, *map(json.loads, response)]
        connection.close()
    assert [result["frame"] for result in results] == list(range(50))
    assert (done["type"], done["frames"]) == ("done", 50)
