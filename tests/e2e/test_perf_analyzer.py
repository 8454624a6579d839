"""Triton's own load generator against a real server. `make perf-analyzer` fetches it.

Its users report "Request count: 0" of the server for other backends, too:
https://github.com/triton-inference-server/fil_backend/issues/106. Binary inputs are given as `b64`:
https://github.com/triton-inference-server/server/issues/6701.
"""

import json
import re
import shutil
import struct
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.running import ROOT, Server, serving
from tests.server.media import textured
from tests.tiny_bundle import tiny_bundle

UNPACKED = ROOT / ".cache/keywarp/perf_analyzer/perf_analyzer"
FRAMES = 8  # of a sequence


@pytest.fixture(scope="module")
def perf_analyzer() -> str:
    found = shutil.which("perf_analyzer") or (str(UNPACKED) if UNPACKED.exists() else None)
    if found is None or subprocess.run([found, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("no perf_analyzer: `make perf-analyzer` fetches it")
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    tiny_bundle(models / "tiny")
    with serving(models=models) as server:
        yield server


def counts(text: str) -> dict[str, int]:
    """Return the counts in perf_analyzer's report."""
    return {name: int(count) for name, count in re.findall(r"^ *([A-Z][a-z ]+) count: (\d+)", text, re.MULTILINE)}


@pytest.mark.parametrize("version", [[], ["-x", "1"]], ids=["any version", "version 1"])
def test_perf_analyzer_drives_sequences_of_images_and_shows_the_servers_figures(
    perf_analyzer: str, server: Server, tmp_path: Path, version: list[str]
) -> None:
    def step(seed: int) -> dict[str, object]:
        image = textured(seed)
        return {"image": {"b64": b64encode(struct.pack("<I", len(image)) + image).decode(), "shape": [1]}}

    data = tmp_path / "frames.json"
    data.write_text(json.dumps({"data": [[step(seed) for seed in range(FRAMES)]]}))
    command = [perf_analyzer, "-i", "http", "-u", server.url.removeprefix("http://"), "-m", "tiny", *version]
    command += ["--input-data", str(data), "--sequence-length", str(FRAMES), "--request-count", str(5 * FRAMES)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    client, measured = (counts(side) for side in done.stdout.split("Server:"))
    assert client["Request"] >= 5 * FRAMES
    assert client["Sequence"] >= 4
    assert abs(measured["Inference"] - client["Request"]) <= 4  # the windows of both sides differ a little
    assert measured["Inference"] == measured["Execution"] == measured["Successful request"]
    assert re.search(r"queue [1-9]\d* usec \+ compute input [1-9]\d* usec \+ compute infer [1-9]\d* usec", done.stdout)
    assert "Multiple versions" not in done.stderr
