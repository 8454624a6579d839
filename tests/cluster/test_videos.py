"""`keywarp ray run`, run as a user runs it, on three videos of which one is broken."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.media import write_video
from tests.tiny_bundle import tiny_bundle

pytestmark = pytest.mark.ray


def test_each_video_is_processed_once_and_a_broken_one_is_named(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "models" / "tiny")
    videos, results = tmp_path / "videos", tmp_path / "results"
    videos.mkdir()
    write_video(videos / "a.mp4", frames=12, fps=10)
    (videos / "b.mp4").write_bytes(b"no video")
    write_video(videos / "c.mp4", frames=7, fps=10)
    command = [sys.executable, "-m", "keywarp.cli", "ray", "run", str(videos), "--ndjson", str(results)]
    command += ["--video-cpus", "0.5", "--model", "tiny", "--models", str(tmp_path / "models"), "--interval", "3"]
    first = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=300)
    assert first.returncode == 1
    assert "2 done, 0 skipped, 1 failed" in first.stdout
    assert f"keywarp: 1 of 3 videos failed: {videos / 'b.mp4'}" in first.stderr
    assert sorted(path.name for path in results.iterdir()) == ["a.ndjson", "c.ndjson"]
    for name, count in (("a", 12), ("c", 7)):
        lines = (results / f"{name}.ndjson").read_text().splitlines()
        assert [json.loads(line)["frame"] for line in lines] == list(range(count))
    before = (results / "a.ndjson").stat().st_mtime_ns
    write_video(videos / "b.mp4", frames=5, fps=10)
    again = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "1 done, 2 skipped, 0 failed" in again.stdout
    assert (results / "a.ndjson").stat().st_mtime_ns == before
