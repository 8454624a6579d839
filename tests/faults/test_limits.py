"""A server that may open few files, while streams run."""

import shutil
import socket
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.running import serving
from tests.e2e.test_cameras import PATIENCE, eventually
from tests.faults.viewers import FPS, check_each_frame_once, viewing
from tests.tiny_bundle import tiny_bundle

FILES = 64
VIEWERS = 2


def test_streams_go_on_while_others_use_up_the_files_that_the_server_may_open(tmp_path: Path) -> None:
    prlimit = shutil.which("prlimit")
    if not prlimit:
        pytest.skip("no prlimit, which is part of util-linux")
    models = tiny_bundle(tmp_path / "models" / "tiny").path.parent
    with (
        serving("--backend", "onnxruntime", models=models, within=(prlimit, f"--nofile={FILES}:{FILES}")) as server,
        viewing(server.url, VIEWERS) as viewers,
        ExitStack() as silent,
    ):
        parts = urlsplit(server.url)
        for _ in range(3 * FILES):
            silent.enter_context(socket.create_connection((parts.hostname or "", parts.port or 0), PATIENCE))
        counts = [len(viewer.frames) for viewer in viewers]
        eventually(lambda: all(len(v.frames) > n + FPS for v, n in zip(viewers, counts, strict=True)))
        assert httpx.put(f"{server.url}/v1/streams/late", json={}, timeout=PATIENCE).is_success
    check_each_frame_once(viewers)
    assert not any(viewer.reconnects for viewer in viewers)
