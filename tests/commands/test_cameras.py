"""`keywarp cameras discover` prints cameras and lines for the site file, and never a password."""

import io
import json
import tomllib
from pathlib import Path

import pytest

from keywarp.cli import cameras
from keywarp.server.site import read_site
from tests.commands.running import keywarp
from tests.onvif.camera import PASSWORD
from tests.onvif.running import camera

VARIABLE = "KEYWARP_CAMERA_PASSWORD"


def test_cameras_found_become_lines_of_a_site_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, PASSWORD)
    monkeypatch.setenv("COLUMNS", "200")
    with camera("--udp", "3702", "--media2") as running:
        found = keywarp("cameras", "discover", "--timeout", "2", "--user", "ad:min")
        refused = running.stop()
    assert (found.status, refused) == (1, 1)  # There is no such user, which costs one attempt.
    assert "Front door" in found.stdout
    assert "it refuses the user and password" in found.stderr
    with camera("--udp", "3702", "--media2"):
        found = keywarp("cameras", "discover", "--timeout", "2", "--user", "admin")
    assert found.status == 0, found.stderr
    assert PASSWORD not in found.stdout + found.stderr
    for shown in ("HIKVISION DS-2CD2143", "mainstream", "1920 x 1080", "H265", "640 x 360"):
        assert shown in found.stdout
    lines = found.stdout[found.stdout.index("[streams.front-door]") :]
    source = tomllib.loads(lines)["streams"]["front-door"]["source"]
    assert source.startswith("rtsp://admin:PASSWORD@")
    assert '\n# source = "rtsp://admin:PASSWORD@' in lines
    site = tmp_path / "site.toml"
    site.write_text(lines, encoding="utf-8")
    assert set(read_site(site).streams) == {"front-door"}


def test_one_camera_is_asked_at_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, PASSWORD)
    with camera() as running:
        address = f"127.0.0.1:{running.http}"
        [bare] = json.loads(keywarp("cameras", "discover", "--address", address, "--json").stdout)
        told = keywarp("cameras", "discover", "--address", address, "--user", "admin", "--json")
    assert bare == {"address": "127.0.0.1", "service": running.service}
    [one] = json.loads(told.stdout)
    assert [(profile["codec"], profile["height"]) for profile in one["profiles"]] == [("H264", 1080), ("H264", 360)]
    assert PASSWORD not in told.stdout


@pytest.mark.parametrize("address", ["http://127.0.0.1/x", "127.0.0.1:x", "user:secret@127.0.0.1", "", "127.0.0.1/x"])
def test_what_is_no_address_is_refused(address: str) -> None:
    refused = keywarp("cameras", "discover", "--address", address)
    assert refused.status == 2
    assert "write HOST or HOST:PORT" in refused.stderr
    assert "secret" not in refused.stderr


def test_what_is_no_camera_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with camera("--answer", "garbage") as running:
        refused = keywarp("cameras", "discover", "--address", f"127.0.0.1:{running.http}")
    assert refused.status == 1
    assert refused.stderr.startswith(f"keywarp: 127.0.0.1:{running.http}: it is no ONVIF camera: ")
    monkeypatch.setattr("keywarp.onvif.discover", lambda _: [])
    nobody = keywarp("cameras", "discover", "--timeout", "0.1")
    assert nobody.status == 1
    assert "no camera answered within 0.1 s" in nobody.stderr


def test_a_password_is_needed_and_never_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    refused = keywarp("cameras", "discover", "--user", "admin")
    assert refused.status == 1
    assert f"set the environment variable {VARIABLE}" in refused.stderr
    assert keywarp("cameras", "discover", "--password", "x").status == 2


def test_streams_get_names_that_they_can_have() -> None:
    taken: set[str] = set()
    names = [cameras._stream_name(name, taken) for name in ("Front door", "front-door", "Tür", "入口", "x" * 99)]
    assert names == ["front-door", "front-door-2", "t-r", "camera", "x" * 50]
