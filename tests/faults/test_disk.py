"""A disk that is full, and a cache that can't be written, while streams run. Both are file systems of their own."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.running import serving
from tests.e2e.test_cameras import eventually
from tests.faults.viewers import FPS, check_each_frame_once, viewing
from tests.tiny_bundle import tiny_bundle

VIEWERS = 2
SIZE = 128  # KiB of the small disk


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("models") / "tiny").path.parent


@contextmanager
def disk(folder: Path, *options: str) -> Iterator[Path]:
    """Mount a small file system until the block ends."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", ",".join((f"size={SIZE}k", *options)), "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems can't be mounted here: run the tests as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def counted(url: str, outcome: str) -> int:
    wanted = f'keywarp_sink_answers_total{{outcome="{outcome}",sink="archive"}} '
    return next(
        int(float(line.split()[-1])) for line in httpx.get(f"{url}/metrics").text.splitlines() if wanted in line
    )


def test_a_full_disk_stops_a_sink_but_no_stream_and_nothing_is_lost_once_there_is_room(
    models: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site.toml"
    with disk(tmp_path / "full") as full:
        ballast = full / "ballast"
        ballast.write_bytes(bytes((SIZE - 8) * 1024))
        site.write_text(f'[sinks.archive]\nfile = "{full}/{{stream}}.ndjson"')
        options = ("--backend", "onnxruntime", "--site", str(site))
        with serving(*options, models=models, log=tmp_path / "log") as server:
            created = httpx.put(f"{server.url}/v1/streams/viewer-0", json={"sinks": ["archive"], "interval": 5})
            assert created.is_success
            with viewing(server.url, VIEWERS) as viewers:
                eventually(lambda: counted(server.url, "failed") > 0)
                counts = [len(viewer.frames) for viewer in viewers]
                eventually(lambda: all(len(v.frames) > n + FPS for v, n in zip(viewers, counts, strict=True)))
                ballast.unlink()
                eventually(lambda: counted(server.url, "delivered") > FPS)
            httpx.delete(f"{server.url}/v1/streams/viewer-0")
            eventually(
                lambda: counted(server.url, "delivered") + counted(server.url, "missed") == len(viewers[0].frames)
            )
            missed = counted(server.url, "missed")
        kept = [json.loads(line) for line in (full / "viewer-0.ndjson").read_text().splitlines()]
    check_each_frame_once(viewers)
    assert missed == 0
    assert [line["frame"] for line in kept] == viewers[0].frames
    assert "can't be written: No space left on device" in (tmp_path / "log").read_text()


def test_a_cache_that_cannot_be_written_costs_only_time(models: Path, tmp_path: Path) -> None:
    with disk(tmp_path / "cache", "ro") as cache:
        options = ("--backend", "openvino")
        surroundings = ("env", f"XDG_CACHE_HOME={cache}")
        with (
            serving(*options, models=models, within=surroundings, log=tmp_path / "log") as server,
            viewing(server.url, VIEWERS) as viewers,
        ):
            pass
    check_each_frame_once(viewers)
