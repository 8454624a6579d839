import sys
import tarfile
import zipfile
from pathlib import Path

from tests.installed.conftest import ROOT, Installation, command

PAGE = ROOT / "server" / "keywarp" / "server" / "dashboard" / "page"
CLIENT = ROOT / "clients" / "web" / "src"
SERVE = """
from fastapi import FastAPI
from starlette.testclient import TestClient
from keywarp.server import dashboard

app = FastAPI()
app.include_router(dashboard.router)
with TestClient(app) as client:
    for path in ("app.js", "vendor/keywarp.js", "vendor/uPlot.js"):
        print(path, len(client.get(f"/dashboard/{path}").raise_for_status().content))
"""


def test_a_wheel_has_the_dashboards_files_and_the_javascript_client(installed: Installation) -> None:
    page = installed.packages / "keywarp" / "server" / "dashboard" / "page"
    expected = {file.relative_to(PAGE): file for file in PAGE.rglob("*") if file.is_file()}
    expected |= {Path("vendor", file.name): file for file in CLIENT.iterdir()}
    assert {file.relative_to(page) for file in page.rglob("*") if file.is_file()} == set(expected)
    for name, source in expected.items():
        assert (page / name).read_bytes() == source.read_bytes(), name


def test_an_installed_server_serves_the_dashboard(installed: Installation, tmp_path: Path) -> None:
    files = {
        "app.js": PAGE / "app.js",
        "vendor/keywarp.js": CLIENT / "keywarp.js",
        "vendor/uPlot.js": PAGE / "vendor" / "uPlot.js",
    }
    printed = installed.run(SERVE, tmp_path).splitlines()
    assert printed == [f"{path} {source.stat().st_size}" for path, source in files.items()]


def test_the_wheel_built_from_the_source_distribution_is_the_same(tmp_path: Path) -> None:
    build = (sys.executable, "-m", "hatchling", "build", "--directory", tmp_path, "--target")
    command(*build, "wheel", cwd=ROOT)
    [wheel] = tmp_path.glob("*.whl")
    from_checkout = wheel.read_bytes()
    command(*build, "sdist", cwd=ROOT)
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(tmp_path, filter="data")
    command(*build, "wheel", cwd=tmp_path / archive.name.removesuffix(".tar.gz"))
    assert wheel.read_bytes() == from_checkout, zipfile.ZipFile(wheel).namelist()
