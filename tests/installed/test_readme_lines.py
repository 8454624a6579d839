"""The README's own lines, word by word, in a clean virtual environment outside of the checkout.

Packages come from the index that pip is configured for. Another server may listen on the port that the README names, so
environment variables name another one.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.running import write_clip
from tests.installed.conftest import ROOT, command

FRAMES = 30
START_SECONDS = 120.0
MOST_BYTES = 900e6  # README, Install: it takes 878 MB, of which `draw` takes 178
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOT_NEEDED = ("torch", "numba", "llvmlite", "pyarrow", "pandas")


def blocks(heading: str, language: str = "") -> list[str]:
    """Return the code blocks of one section of the README."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Clean:
    """A virtual environment with what the README installs, and a folder to work in with `street.mp4`."""

    environment: Path
    folder: Path
    variables: dict[str, str]

    def run(self, line: str) -> str:
        """Run a line of the README as a shell does, and return what it prints."""
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def serving(self, line: str) -> Iterator[None]:
        """Run a line that starts a server, until the block ends."""
        process = subprocess.Popen(
            shlex.split(line), cwd=self.folder, env=self.variables, stdout=subprocess.PIPE, encoding="utf-8"
        )
        watchdog = threading.Timer(START_SECONDS, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("keywarp: listening on ")
            yield
            process.terminate()
            assert process.wait(20) == 0
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clean]:
    """Build the wheels and install them as the README says. The environment is deleted afterwards: it has 1 GB."""
    install, _ = blocks("Install")
    make, pip = install.splitlines()
    command("bash", "-c", f"{make} PYTHON={shlex.quote(sys.executable)}", cwd=ROOT)
    environment, folder = tmp_path_factory.mktemp("clean"), tmp_path_factory.mktemp("elsewhere")
    (folder / "dist").mkdir()
    for wheel in (ROOT / "dist").glob("keywarp*.whl"):
        shutil.copy(wheel, folder / "dist")
    command(sys.executable, "-m", "venv", environment, cwd=folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("KEYWARP_", "PYTHON"))}
    variables |= {
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
        "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
        "KEYWARP_PORT": str(port),
        "KEYWARP_SERVER": f"http://127.0.0.1:{port}",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    made = Clean(environment, folder, variables)
    made.run(pip)
    write_clip(folder / "street.mp4", FRAMES)
    yield made
    shutil.rmtree(environment)


def test_the_readme_installs_what_serving_needs_and_no_more(clean: Clean) -> None:
    [packages] = clean.environment.glob("lib/python*/site-packages")
    assert [name for name in NOT_NEEDED if (packages / name).exists()] == []
    size = sum(file.stat().st_size for file in packages.rglob("*") if file.suffix != ".pyc" and file.is_file())
    assert size < MOST_BYTES


def test_the_readmes_commands_have_models_and_process_a_video(clean: Clean) -> None:
    _, lines = blocks("Install")
    serve, stream, run = lines.splitlines()
    assert blocks("Try it")[-1] == f".venv/bin/{stream}\n"
    with clean.serving(serve):
        clean.run(stream)
        results = [json.loads(line) for line in (clean.folder / "results.ndjson").read_text().splitlines()]
        assert [result["kind"] for result in results] == ["propagated" if n % 10 else "key" for n in range(FRAMES)]
        assert (clean.folder / "annotated.mp4").stat().st_size > 10_000
        names = [
            model["name"] for model in json.loads(clean.run('keywarp models list --server "$KEYWARP_SERVER" --json'))
        ]
        assert names == ["street", "street-detect"]
        [client, _] = blocks("Use it from Python", "python")
        (clean.folder / "client.py").write_text(
            client.replace("http://127.0.0.1:8080", clean.variables["KEYWARP_SERVER"])
        )
        assert len(clean.run("python client.py").splitlines()) == FRAMES
    clean.run(run)
    assert (clean.folder / "again.mp4").stat().st_size > 10_000


def test_the_readmes_engine_runs_without_a_server(clean: Clean) -> None:
    [_, engine] = blocks("Use it from Python", "python")
    (clean.folder / "engine.py").write_text(engine)
    lines = clean.run("python engine.py").splitlines()
    assert len(lines) == FRAMES
    assert lines[0].startswith("0 key 0 ")


def test_an_unknown_model_is_answered_with_what_there_is_and_what_to_do(clean: Clean) -> None:
    said = clean.run("keywarp run street.mp4 --model yolo 2>&1 || true")
    assert "no model 'yolo' in models; there are: street, street-detect. `keywarp import` makes one" in said
