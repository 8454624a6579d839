"""Run a server process on this machine, for the commands that demonstrate or measure one."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from keywarp.cli.errors import CommandError

LISTENING = "keywarp: listening on "  # the server prints this before its URL
START_SECONDS = 60.0  # limit for starting and compiling the models


@contextmanager
def local_server(models: Path, *options: str) -> Iterator[str]:
    """Run `keywarp serve` on a free port of the loopback interface until the block ends.

    Args:
        models: The models folder.
        options: Further options of the command.

    Yields:
        The server's URL, once its models are ready.

    Raises:
        CommandError: If the server stops before it is ready, or isn't ready within `START_SECONDS`.
    """
    command = [sys.executable, "-m", "keywarp.cli", "serve", "--port", "0", "--log-level", "warning"]
    process = subprocess.Popen([*command, "--models", str(models), *options], stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(LISTENING):
                break
        else:
            raise CommandError(f"the server didn't start (exit status {process.wait()}); its error is printed above")
        url = line.removeprefix(LISTENING).strip()
        _wait_until_ready(url)
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


def _wait_until_ready(url: str) -> None:
    """Wait until the models are ready. The caller's watchdog bounds the wait by killing the server."""
    while True:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError as error:
            raise CommandError("the server stopped before its models were ready; its error is printed above") from error
        time.sleep(0.1)
