"""The proxy's configuration of docs/server.md, by nginx."""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from keywarp.client import Client
from tests.e2e.running import ROOT, serving, street_video

PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"


@contextmanager
def nginx(folder: Path, server: str) -> Iterator[str]:
    """An nginx before a server, with the documented location."""
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


def test_streams_uploads_and_watchers_pass_through_a_proxy(tmp_path: Path) -> None:
    with serving() as server, nginx(tmp_path, server.url) as url, Client(url) as client:
        with client.stream(street_video(), interval=50, in_flight=4) as results:
            assert [next(results).frame for _ in range(30)] == list(range(30))
        with client.stream(street_video(), codec="h264", stream_id="gate") as results, client.watch("gate") as watch:
            assert next(results).frame == 0
            assert next(watch).kind in ("key", "propagated")
        page = httpx.get(url + "/", headers={"Origin": url})
        assert page.is_success
        video = street_video().read_bytes()

        def slowly() -> Iterator[bytes]:
            yield video[: len(video) // 2]
            time.sleep(1)
            yield video[len(video) // 2 :]

        headers = {"content-type": "video/mp4"}
        with httpx.stream("POST", f"{url}/v1/videos", content=slowly(), headers=headers, timeout=60) as response:
            assert response.is_success
            assert sum(1 for _ in response.iter_lines()) == 251
