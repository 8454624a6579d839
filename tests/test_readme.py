"""The Python in README and docs runs as it stands, against a real server and a real video."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.running import Server, street_video

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(document: str) -> list[str]:
    return BLOCK.findall((ROOT / document).read_text())


def run(code: str, folder: Path, *arguments: str) -> str:
    """Run code as a user would: a script in a folder with `models` and `street.mp4`."""
    (folder / "models").symlink_to(ROOT / "models")
    (folder / "street.mp4").symlink_to(street_video())
    script = folder / "script.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("number", "first"), [(0, "0 key 0 "), (1, "0 key 0 ")], ids=["client", "engine"])
def test_the_readmes_code_runs(server: Server, tmp_path: Path, number: int, first: str) -> None:
    lines = run(blocks("README.md")[number].replace("http://127.0.0.1:8080", server.url), tmp_path).splitlines()
    assert len(lines) == 250
    assert lines[0].startswith(first)
    assert lines[9].startswith("9 propagated 9 ")
    assert lines[10].startswith("10 key 0 ")


def test_the_protocols_plain_client_runs(server: Server, tmp_path: Path) -> None:
    import simplejpeg

    from keywarp.client import open_source

    names = []
    for index, frame in zip(range(3), open_source(street_video()), strict=False):
        names.append(f"{index}.jpg")
        (tmp_path / names[-1]).write_bytes(simplejpeg.encode_jpeg(frame.image))
    url = server.url.replace("http", "ws") + "/v1/streams/plain/ws"
    lines = run(blocks("docs/protocol.md")[0], tmp_path, url, *names).splitlines()
    assert lines[0].startswith("street [")
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["0.jpg", "key", "0"],
        ["1.jpg", "propagated", "1"],
        ["2.jpg", "propagated", "2"],
    ]
    assert "'type': 'done', 'frames': 3, 'key_frames': 1, 'errors': 0" in lines[4]
