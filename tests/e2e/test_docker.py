"""`docker compose up` on a real Docker engine. These tests are skipped if no engine answers.

The first run builds the image, which takes minutes. Later ones take everything that hasn't changed from Docker's cache.
`KEYWARP_TEST_BASE` names another base image if the usual one isn't available, and `PIP_INDEX_URL` is passed on.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import typer

from keywarp.client import Client, UnavailableError
from keywarp.commands.serve import serve
from tests.e2e.running import ROOT, keywarp, street_video

BUILD_SECONDS = 900.0
START_SECONDS = 90.0  # until the container is healthy
IMAGE = "keywarp:test"
LOCKS = """
import importlib.util, json, os, pathlib
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
def writes(folder):
    try:
        (pathlib.Path(folder) / "probe").touch()
        (pathlib.Path(folder) / "probe").unlink()
    except OSError:
        return False
    return True
print(json.dumps({
    "uid": os.getuid(),
    "read_only": bool(os.statvfs("/").f_flag & os.ST_RDONLY),
    "capabilities": [int(status[kind], 16) for kind in ("CapEff", "CapPrm", "CapBnd")],
    "no_new_privileges": status["NoNewPrivs"],
    "writes": [f for f in ("/", "/opt/keywarp", "/models", "/etc/keywarp", "/cache", "/data", "/tmp") if writes(f)],
    "torch": importlib.util.find_spec("torch") is not None,
}))
"""
KILL = """
import os, pathlib
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if (process / "cmdline").read_bytes().endswith(b"/bin/keywarp\\0serve\\0") and process.name != "1":
        os.kill(int(process.name), 9)
"""


def docker(*arguments: str, env: dict[str, str] | None = None, timeout: float = 120) -> str:
    """Run docker, which must succeed, and return its output."""
    done = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("KEYWARP_")} | (env or {}),
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass
class Project:
    """The repository's docker-compose.yml, with its own project name and port."""

    env: dict[str, str]
    base: tuple[str, ...] = field(default=("compose", "--project-name", f"keywarp-test-{os.getpid()}"))

    def __call__(self, *arguments: str, **variables: str) -> str:
        """Run `docker compose` without the file `.env`."""
        return docker(*self.base, "--env-file", os.devnull, *arguments, env=self.env | variables)

    def up(self, **variables: str) -> None:
        self("up", "--detach", "--wait", "--wait-timeout", str(int(START_SECONDS)), **variables)

    @property
    def url(self) -> str:
        return "http://" + self("port", "keywarp", "8080").strip()

    def inspect(self, template: str) -> str:
        container = self("ps", "--all", "--quiet", "keywarp").strip()
        return docker("inspect", "--format", template, container).strip()


def eventually(condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.2)


@pytest.fixture(scope="module")
def image() -> str:
    """Build the image, and return its name."""
    if shutil.which("docker") is None:
        pytest.skip("there is no docker command")
    with suppress(subprocess.TimeoutExpired):
        asked = subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=20)
        if asked.returncode == 0:
            arguments = ["--file", "docker/Dockerfile.cpu", "--tag", IMAGE]
            if base := os.environ.get("KEYWARP_TEST_BASE"):
                arguments += ["--build-arg", f"BASE={base}"]
            if "PIP_INDEX_URL" in os.environ:
                arguments += ["--build-arg", "PIP_INDEX_URL"]
            docker("build", *arguments, ".", timeout=BUILD_SECONDS)
            return IMAGE
    pytest.skip("no Docker engine answers `docker info`")


@pytest.fixture(scope="module")
def project(image: str) -> Iterator[Project]:
    project = Project({"KEYWARP_IMAGE": image, "KEYWARP_PUBLISH": "127.0.0.1:0"})
    try:
        project.up()
        yield project
    finally:
        project("down", "--volumes", "--timeout", "1")


def test_the_container_serves_a_client_outside_of_it(project: Project, tmp_path: Path) -> None:
    results = tmp_path / "results.ndjson"
    done = keywarp("stream", street_video(), "--server", project.url, "--ndjson", results)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["propagated" if n % 10 else "key" for n in range(250)]


def test_the_container_has_no_privileges_and_a_read_only_file_system(project: Project) -> None:
    assert json.loads(project("exec", "-T", "keywarp", "python", "-c", LOCKS)) == {
        "uid": 10001,
        "read_only": True,
        "capabilities": [0, 0, 0],
        "no_new_privileges": "1",
        "writes": ["/cache", "/data", "/tmp"],
        "torch": False,
    }


def test_the_container_keeps_its_compiled_engines(project: Project) -> None:
    assert ".blob" in project("exec", "-T", "keywarp", "ls", "/cache/engines")


def test_the_container_restarts_after_a_crash(project: Project) -> None:
    before = int(project.inspect("{{.RestartCount}}"))
    project("exec", "-T", "keywarp", "python", "-IS", "-c", KILL)
    eventually(lambda: project.inspect("{{.RestartCount}} {{.State.Health.Status}}") == f"{before + 1} healthy")
    assert httpx.get(f"{project.url}/readyz").is_success


def test_stopping_the_container_drains_its_streams(project: Project) -> None:
    """The client learns why the stream ends, and has the results of all frames before the end."""
    results: list[int] = []
    with (  # noqa: PT012
        Client(project.url) as client,
        client.stream(street_video(), model="street", interval=1, reconnect=None) as stream,
        pytest.raises(UnavailableError, match="the server stops"),
    ):
        for result in stream:
            results.append(result.frame)
            if len(results) == 3:
                project("stop", "keywarp")
    assert results == list(range(len(results)))
    assert 3 <= len(results) < 250
    assert project.inspect("{{.State.ExitCode}}") == "0"
    project.up()


def test_the_container_requires_a_key_that_was_added(project: Project) -> None:
    try:
        secret = project("run", "--rm", "keys", "add", "gate-1").strip()
        project.up(KEYWARP_KEYS="/etc/keywarp/keys.txt")
        assert httpx.get(f"{project.url}/v1/models").status_code == 401
        assert httpx.get(f"{project.url}/v1/models", headers={"X-API-Key": secret}).is_success
    finally:
        project.up()


def test_the_image_serves_without_compose(image: str) -> None:
    container = docker("run", "--detach", "--rm", "--read-only", "--cap-drop", "ALL", image).strip()
    try:
        eventually(lambda: docker("inspect", "--format", "{{.State.Health.Status}}", container).strip() == "healthy")
    finally:
        docker("rm", "--force", "--volumes", container)


def test_the_image_is_labelled_with_the_version(image: str) -> None:
    labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", image))
    assert f'version = "{labels["org.opencontainers.image.version"]}"' in (ROOT / "pyproject.toml").read_text()


def test_every_option_of_the_server_is_passed_to_its_container() -> None:
    app = typer.Typer(add_completion=False)
    app.command()(serve)
    options = {str(option.envvar) for option in typer.main.get_command(app).params if option.name != "help"}
    passed = set(re.findall(r"^      (KEYWARP_\w+):$", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE))
    # The image sets the first three, and the others have a default.
    assert passed == options - {
        "KEYWARP_HOST",
        "KEYWARP_PORT",
        "KEYWARP_MODELS",
        "KEYWARP_DATA",
        "KEYWARP_LEASES",
        "KEYWARP_PEER",
    }


@pytest.mark.parametrize("profile", ["gpu", "k40"])
def test_a_gpu_profile_differs_only_in_its_gpu_and_never_falls_back_to_the_cpu(profile: str) -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "compose", "version"], check=False).returncode:
        pytest.skip("there is no docker compose")
    services = json.loads(docker("compose", "--profile", profile, "config", "--format", "json"))["services"]
    gpu, cpu = services[profile], services["keywarp"]
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert {"gpu", "compute", "utility"} <= set(device["capabilities"])
    assert gpu["build"]["dockerfile"] == f"docker/Dockerfile.{profile}"
    assert gpu["environment"].pop("KEYWARP_BACKEND") == "tensorrt"
    assert cpu["environment"].pop("KEYWARP_BACKEND") is None
    own = ("build", "deploy", "image", "ports", "profiles", "volumes")
    assert {key: value for key, value in gpu.items() if key not in own} == {
        key: value for key, value in cpu.items() if key not in own
    }
    assert profile not in json.loads(docker("compose", "config", "--format", "json"))["services"]
