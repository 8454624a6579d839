"""The unit for systemd, and what it runs, as far as that goes without systemd as init."""

import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import httpx
import pytest

from tests.e2e.running import MODELS, ROOT, serving
from tests.e2e.test_cameras import PATIENCE, camera, eventually

UNIT = ROOT / "systemd" / "keywarp.service"


@pytest.fixture
def service() -> dict[str, str]:
    """Read the section of the unit that says what runs."""
    unit = ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names have capitals
    unit.read(UNIT)
    return dict(unit["Service"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd isn't installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("keywarp")
    (tmp_path / UNIT.name).write_text(UNIT.read_text().replace("/opt/keywarp/bin/keywarp", str(program)))
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / UNIT.name)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


def test_what_the_unit_runs_serves_keeps_cameras_and_reads_the_site_again_on_a_reload(
    service: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pair in service["Environment"].split():
        name, _, value = pair.partition("=")
        folder = Path(value.replace("%S", str(tmp_path / "state")).replace("%C", str(tmp_path / "cache")))
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv(name, str(folder))
    site = tmp_path / "site.toml"
    site.write_text("")
    config = tmp_path / "serve.toml"
    config.write_text(f'models = "{MODELS}"\nsite = "{site}"\nallow_pull = ["127.0.0.1"]\n')
    _, command, *options = shlex.split(service["ExecStart"].replace("/etc/keywarp/serve.toml", str(config)))
    assert command == "serve"
    with camera() as port, serving(*options) as server, httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
        source = f"rtsp://127.0.0.1:{port}/camera"
        assert http.post("/v1/streams", json={"id": "added", "source": source}).json()["kept"]
        site.write_text(f'[streams.gate]\nsource = "{source}"')
        reload = service["ExecReload"].replace("$MAINPID", str(server.process.pid))
        assert "-HUP" in reload
        subprocess.run(shlex.split(reload), check=True)
        eventually(lambda: http.get("/v1/streams/gate").is_success)
        eventually(lambda: http.get("/v1/streams/gate").json()["state"] == "running")
        site.write_text("")
        subprocess.run(shlex.split(reload), check=True)
        eventually(lambda: http.get("/v1/streams/gate").status_code == 404)
        assert http.get("/v1/streams/added").json()["state"] == "running"
    assert (tmp_path / "state" / "keywarp" / "cameras.sqlite3").stat().st_mode & 0o777 == 0o600
