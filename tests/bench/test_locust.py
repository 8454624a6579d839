"""Locust's users against a real server."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.e2e.running import ROOT, serving
from tests.tiny_bundle import tiny_bundle


@pytest.mark.skipif(find_spec("locust") is None, reason="`pip install locust` installs Locust")
def test_locust_drives_cameras_at_their_rate(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "models" / "tiny")
    with serving("--backend", "onnxruntime", models=tmp_path / "models") as server:
        command = ["-m", "locust", "-f", str(ROOT / "bench" / "locustfile.py"), "--host", server.url, "--headless"]
        command += ["--users", "2", "--spawn-rate", "2", "--run-time", "3s", "--json", "--exit-code-on-error", "1"]
        environment = os.environ | {"KEYWARP_FPS": "5"}
        done = subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=120,
            env=environment,
            cwd=ROOT,
        )
    assert done.returncode == 0, done.stderr
    figures = {row["name"]: row for row in json.loads(done.stdout)}
    assert figures["create"]["num_requests"] == 2
    assert 1 <= figures["frame"]["num_requests"] <= 2 * 5 * 4  # the rate is the cameras', not the server's
    assert figures["frame"]["num_failures"] == 0
